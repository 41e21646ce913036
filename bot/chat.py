"""A terminal client of a running bot: plays the part of Teams for one person in a personal chat.

It only works with a bot that accepts anonymous activities, since it cannot sign any.
"""

import asyncio
import json
import sys
import uuid
from collections.abc import Mapping
from typing import Any

import aiohttp
from aiohttp import web

from bot.errors import PeerRefused, PeerUnavailable

TIMEOUT = aiohttp.ClientTimeout(total=60, connect=5)
BOT_ID, TENANT = "28:shipshape", "00000000-0000-0000-0000-00000000c0de"


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
            if not as_json:
                print("Type a command, such as help or status. !N presses button N. Ctrl-D ends.")
            while line := await asyncio.to_thread(sys.stdin.readline):
                if line.strip():
                    await chat.say(line.strip())
            await asyncio.sleep(wait_s)
        finally:
            await runner.cleanup()


class _Chat:
    """One person's conversation, and the buttons of the last card in it."""

    def __init__(self, session: aiohttp.ClientSession, bot_url: str, user: str, as_json: bool) -> None:
        self._session = session
        self._bot_url = bot_url.rstrip("/")
        self._user = user
        self._as_json = as_json
        self._id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"shipshape-chat:{user}"))
        self._buttons: list[tuple[str, Mapping[str, Any]]] = []  # activity id, action
        self._next = 0
        self.service_url = ""

    async def say(self, line: str) -> None:
        """Post a message, or press a button. Raises PeerError."""
        if not line.startswith("!"):
            await self._post({"type": "message", "text": line})
            return
        number, _, text = line[1:].partition(" ")
        if not number.isdecimal() or not 0 < int(number) <= len(self._buttons):
            self._note(f"There is no button {number}; the last card has {len(self._buttons)}.")
            return
        activity_id, action = self._buttons[int(number) - 1]
        data = {**action.get("data", {}), **({action["input"]: text} if action.get("input") and text else {})}
        value = {"action": {"type": "Action.Execute", "verb": action["verb"], "data": data}, "trigger": "manual"}
        invoke = {"type": "invoke", "name": "adaptiveCard/action", "value": value, "replyToId": activity_id}
        self._show("invokeResponse", await self._post(invoke))

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
            raise PeerUnavailable(f"no bot answers at {self._bot_url}: start it with `make demo`") from error

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
        self._show("message", {**await request.json(), "id": activity_id})
        return web.json_response({"id": activity_id}, status=201)

    async def _updated(self, request: web.Request) -> web.Response:
        activity_id = request.match_info["id"]
        self._show("messageUpdate", {**await request.json(), "id": activity_id})
        return web.json_response({"id": activity_id})

    async def _member(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"id": f"29:{self._id}", "aadObjectId": self._id, "userPrincipalName": self._user, "name": self._user}
        )

    def _note(self, text: str) -> None:
        print(json.dumps({"type": "note", "text": text}) if self._as_json else text, flush=True)

    def _show(self, kind: str, activity: Any) -> None:
        cards = [a["content"] for a in (activity or {}).get("attachments") or [] if "content" in a]
        if cards:
            self._buttons = [(str(activity.get("id", "")), action) for card in cards for action in _actions(card)]
        if self._as_json:
            line = activity if kind == "message" else {"type": kind, "value": activity}
            print(json.dumps(line, ensure_ascii=False), flush=True)
            return
        print(f"\n{'(edited) ' if kind == 'messageUpdate' else ''}" + "\n".join(_lines(activity, cards)))
        for number, (_, action) in enumerate(self._buttons if cards else [], 1):
            hint = f" (!{number} {action['input']}…)" if action.get("input") else ""
            print(f"  [!{number}] {action['title']}{hint}")
        sys.stdout.flush()


def _lines(activity: Any, cards: list[Any]) -> list[str]:
    if not cards:
        value = (activity or {}).get("value")
        return [str((activity or {}).get("text") or (value if isinstance(value, str) else "") or "(done)")]
    return [line for card in cards for line in _texts(card)]


def _texts(element: Any) -> list[str]:
    """What a card says, top to bottom; columns of one row on one line."""
    if not isinstance(element, dict) or element.get("isVisible") is False:
        return []
    kind = element.get("type")
    if kind == "TextBlock":
        return [str(element.get("text", ""))]
    if kind == "RichTextBlock":
        return ["".join(run if isinstance(run, str) else str(run.get("text", "")) for run in element["inlines"])]
    if kind == "FactSet":
        return [f"{fact['title']}: {fact['value']}" for fact in element["facts"]]
    if kind in ("ColumnSet", "TableRow"):
        cells = [" / ".join(_texts(cell)) for cell in element.get("columns") or element.get("cells") or []]
        return ["  ".join(filter(None, cells))]
    children = element.get("body") or element.get("items") or element.get("rows") or []
    return [line for child in children for line in _texts(child)]


def _actions(element: Any) -> list[dict[str, Any]]:
    """Buttons in the order of the card, those of inline forms with the name of their first input."""
    found: list[dict[str, Any]] = []
    if isinstance(element, list):
        return [action for item in element for action in _actions(item)]
    if not isinstance(element, dict):
        return []
    if element.get("type") == "Action.Execute":
        return [element]
    if element.get("type") == "Action.ShowCard":
        inputs = _inputs(element["card"])
        title = element["title"]
        return [
            {**action, "title": title, "input": inputs[0] if inputs else ""} for action in _actions(element["card"])
        ]
    for key in ("body", "items", "columns", "rows", "cells", "actions", "selectAction"):
        found += _actions(element.get(key))
    return found


def _inputs(element: Any) -> list[str]:
    if isinstance(element, list):
        return [name for item in element for name in _inputs(item)]
    if not isinstance(element, dict):
        return []
    own = [str(element["id"])] if str(element.get("type", "")).startswith("Input.") else []
    return own + [name for key in ("body", "items", "columns", "card") for name in _inputs(element.get(key))]
