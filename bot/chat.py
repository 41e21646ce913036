"""A terminal client of a running bot: plays the part of Teams for one person in a personal chat.

It only works with a bot that accepts anonymous activities, since it cannot sign any.
"""

import asyncio
import html
import json
import re
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from threading import Thread
from typing import Any

import aiohttp
from aiohttp import web

from bot.errors import PeerRefused, PeerUnavailable

TIMEOUT = aiohttp.ClientTimeout(total=60, connect=5)
BOT_ID, TENANT = "28:shipshape", "00000000-0000-0000-0000-00000000c0de"
# https://learn.microsoft.com/adaptive-cards/authoring-cards/text-features
MOMENT = re.compile(r"{{(DATE|TIME)\(([^,)]+)[^)]*\)}}")
ESCAPED = re.compile(r"\\([^\w\s])")


async def talk(bot_url: str, user: str, *, as_json: bool, wait_s: float) -> None:
    """Send each line of standard input to the bot and print what comes back. Raises PeerError."""
    async with aiohttp.ClientSession(timeout=TIMEOUT) as session:
        chat = _Chat(session, bot_url, user, as_json)
        runner = web.AppRunner(chat.connector(), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            chat.service_url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            await chat.find_bot()
            if not as_json:
                print("Type a command, such as help or status. !N presses button N. Ctrl-D ends.", flush=True)
            async for line in _typed():
                if line.strip():
                    await chat.say(line.strip())
            await asyncio.sleep(wait_s)
        finally:
            await runner.cleanup()


async def _typed() -> AsyncIterator[str]:
    """The lines of standard input.

    A read that waits cannot be cancelled, so it has a thread that nobody waits for when Ctrl-C is pressed, and a file
    of its own, because the interpreter locks `sys.stdin` when it ends.
    """
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[str]()

    def read() -> None:
        with suppress(RuntimeError):  # the loop has ended meanwhile
            with suppress(OSError), open(0, closefd=False, encoding="utf-8", errors="replace") as typed:
                for line in typed:
                    loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, "")

    Thread(target=read, daemon=True).start()
    while line := await lines.get():
        yield line


@dataclass(frozen=True, slots=True, kw_only=True)
class _Button:
    """A button of a card that was shown; `input` is the id of what `!N text` fills in, empty without one."""

    activity_id: str
    action: Mapping[str, Any]
    input: str = ""


class _Chat:
    """One person's conversation, and the buttons of the last card in it."""

    def __init__(self, session: aiohttp.ClientSession, bot_url: str, user: str, as_json: bool) -> None:
        self._session = session
        self._bot_url = bot_url.rstrip("/")
        self._user = user
        self._as_json = as_json
        self._id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"shipshape-chat:{user}"))
        self._buttons: list[_Button] = []
        self._next = 0
        self.service_url = ""

    async def find_bot(self) -> None:
        """Raises PeerUnavailable when there is none."""
        try:
            async with self._session.get(f"{self._bot_url}/healthz"):
                pass
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._absent() from error

    def _absent(self) -> PeerUnavailable:
        return PeerUnavailable(f"no bot answers at {self._bot_url}: start it with `make demo`")

    async def say(self, line: str) -> None:
        """Post a message, or press a button. Raises PeerError."""
        if not line.startswith("!"):
            await self._post({"type": "message", "text": line})
            return
        number, _, text = line[1:].partition(" ")
        if not number.isdecimal() or not 0 < int(number) <= len(self._buttons):
            self._note(f"There is no button {number}; the last card has {len(self._buttons)}.")
            return
        button = self._buttons[int(number) - 1]
        data = {**button.action.get("data", {}), **({button.input: text} if button.input and text else {})}
        action = {"type": "Action.Execute", "verb": button.action["verb"], "data": data}
        value = {"action": action, "trigger": "manual"}
        invoke = {"type": "invoke", "name": "adaptiveCard/action", "value": value, "replyToId": button.activity_id}
        answer = await self._post(invoke)
        self._show("invokeResponse", answer, button.activity_id)

    async def _post(self, activity: Mapping[str, Any]) -> Any:
        name = self._user.partition("@")[0].replace(".", " ").title()
        whole = {
            "id": str(uuid.uuid4()),
            "channelId": "msteams",
            "serviceUrl": self.service_url,
            "from": {"id": f"29:{self._id}", "name": name, "aadObjectId": self._id},
            "recipient": {"id": BOT_ID, "name": "Shipshape"},
            "conversation": {"id": f"chat-{self._id}", "conversationType": "personal", "tenantId": TENANT},
            "channelData": {"tenant": {"id": TENANT}},
            **activity,
        }
        try:
            async with self._session.post(f"{self._bot_url}/api/messages", json=whole) as response:
                if response.status == 401:
                    raise PeerRefused("this bot wants signed activities; chat needs SHIPSHAPE_ALLOW_ANONYMOUS=true")
                if response.status >= 400:
                    raise PeerRefused(f"the bot answered {response.status}: {(await response.text())[:200]}")
                return await response.json(content_type=None) if response.content_type == "application/json" else None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._absent() from error

    def connector(self) -> web.Application:
        """What the bot talks back to. https://learn.microsoft.com/azure/bot-service/rest-api/"""
        app = web.Application()
        path = "/v3/conversations/{conversation}"
        app.router.add_post(path + "/activities", self._posted)
        app.router.add_post(path + "/activities/{id}", self._posted)
        app.router.add_put(path + "/activities/{id}", self._updated)
        app.router.add_get(path + "/members/{id}", self._member)
        return app

    async def _posted(self, request: web.Request) -> web.Response:
        self._next += 1
        activity_id = str(self._next)
        self._show("message", {**await request.json(), "id": activity_id}, activity_id)
        return web.json_response({"id": activity_id}, status=201)

    async def _updated(self, request: web.Request) -> web.Response:
        activity_id = request.match_info["id"]
        self._show("messageUpdate", {**await request.json(), "id": activity_id}, activity_id)
        return web.json_response({"id": activity_id})

    async def _member(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"id": f"29:{self._id}", "aadObjectId": self._id, "userPrincipalName": self._user, "name": self._user}
        )

    def _note(self, text: str) -> None:
        print(json.dumps({"type": "note", "text": text}) if self._as_json else text, flush=True)

    def _show(self, kind: str, shown: Any, activity_id: str) -> None:
        """Print an activity, or the answer to a press; the buttons of a card are those that `!N` presses from now."""
        drawing = _Drawing(activity_id)
        cards = _cards(shown)
        lines = [line for card in cards for line in drawing.lines(card)] or [_text(shown)]
        if cards:
            self._buttons = drawing.buttons
        if self._as_json:
            line = shown if kind == "message" else {"type": kind, "value": shown}
            print(json.dumps(line, ensure_ascii=False), flush=True)
        else:
            print("", *(["(edited)"] if kind == "messageUpdate" else []), *lines, sep="\n", flush=True)


def _cards(shown: Any) -> list[Any]:
    """The cards of a message, or the one that answers a press."""
    shown = shown or {}
    if isinstance(shown.get("value"), dict):
        return [shown["value"]]
    return [attachment["content"] for attachment in shown.get("attachments") or [] if "content" in attachment]


def _text(shown: Any) -> str:
    """What a message without a card says; mentions as in `@Alex Wilber`."""
    said = str((shown or {}).get("text") or (shown or {}).get("value") or "(done)")
    return html.unescape(said.replace("<at>", "@").replace("</at>", ""))


class _Drawing:
    """A card as lines of text, top to bottom; `buttons` are those that were drawn, in the order of their numbers."""

    def __init__(self, activity_id: str) -> None:
        self.buttons: list[_Button] = []
        self._activity_id = activity_id

    def lines(self, element: Mapping[str, Any]) -> list[str]:
        """The lines of a card or of an element of one. Columns of one row are on one line, and so are buttons."""
        if element.get("isVisible") is False:
            return []
        match element.get("type"):
            case "TextBlock":
                return [_plain(element["text"])]
            case "RichTextBlock":
                runs = (run if isinstance(run, str) else run.get("text", "") for run in element["inlines"])
                return [_local("".join(runs))]
            case "FactSet":
                return [f"{_plain(fact['title'])}: {_plain(fact['value'])}" for fact in element["facts"]]
            case "ColumnSet" | "TableRow":
                cells = [" / ".join(self.lines(cell)) for cell in element.get("columns") or element.get("cells") or []]
                return ["  ".join(filter(None, cells))]
        children = [*(element.get("body") or element.get("items") or element.get("rows") or [])]
        lines = [line for child in children for line in self.lines(child)]
        drawn = [drawn for action in element.get("actions") or [] if (drawn := self._action(action))]
        return [*lines, *(["  " + "  ".join(drawn)] if drawn else [])]

    def _action(self, action: Mapping[str, Any]) -> str:
        """`[!1] Approve`, `[!2 REASON] Reject…`, `Open run: https://…`; empty for what only a page can do."""
        match action.get("type"):
            case "Action.Execute":
                return self._number(str(action["title"]), action)
            case "Action.ShowCard":
                body, actions = action["card"].get("body") or [], action["card"].get("actions") or []
                inputs = [str(element["id"]) for element in body if str(element.get("type")).startswith("Input.")]
                return "  ".join(self._number(str(action["title"]), inner, *inputs[:1]) for inner in actions)
            case "Action.OpenUrl":
                return f"{action['title']}: {action['url']}"
        return ""

    def _number(self, title: str, action: Mapping[str, Any], input: str = "") -> str:
        button = _Button(activity_id=self._activity_id, action=action, input=input)
        self.buttons.append(button)
        word = f" {input.partition('.')[0].upper()}" if input else ""
        return f"[!{len(self.buttons)}{word}] {title}"


def _plain(markdown: str) -> str:
    return ESCAPED.sub(r"\1", _local(markdown))


def _local(text: str) -> str:
    """Days and times on the clock of this machine, which a card leaves to its reader."""

    def told(match: re.Match[str]) -> str:
        at = datetime.fromisoformat(match[2]).astimezone()
        return f"{at:%a %d %b %Y}" if match[1] == "DATE" else f"{at:%H:%M}"

    return MOMENT.sub(told, text)
