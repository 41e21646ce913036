"""Teams as the bot sees it: signs activities, gives the bot its token, and takes what the bot posts.

Tokens are real RS256 ones, and the bot's own token is checked on every call. What the bot sends is checked against
Microsoft's description of the connector when that folder is there.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from jsonschema import Draft4Validator

from bot.core.ports import Clock

CONTRACT = Path(__file__).resolve().parents[3] / "shared" / "contracts" / "botframework" / "ConnectorAPI.json"
APP_ID = "11111111-2222-4333-8444-555555555555"
PASSWORD = "not-a-real-password"
TENANT = "00000000-0000-4000-8000-000000000001"
ISSUER = "https://api.botframework.com"
BOT = {"id": f"28:{APP_ID}", "name": "Shipshape"}
DEADLINE_S = 30.0

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class User:
    """Somebody in the tenant."""

    name: str
    entra_id: str
    principal_name: str

    @property
    def mri(self) -> str:
        return f"29:{self.entra_id}"


ALEX = User("Alex Wilber", "00000000-0000-4000-8000-0000000000a1", "alex.wilber@contoso.com")
MEGAN = User("Megan Bowen", "00000000-0000-4000-8000-0000000000b2", "megan.bowen@contoso.com")
NESTOR = User("Nestor Wilke", "00000000-0000-4000-8000-0000000000c3", "nestor.wilke@contoso.com")
NAMESAKE = User("Alex Wilber", "00000000-0000-4000-8000-0000000000d4", "alex.wilber2@contoso.com")
ODDLY_NAMED = User('R&D <at>"Lab"</at>', "00000000-0000-4000-8000-0000000000e5", "lab@contoso.com")
USERS = (ALEX, MEGAN, NESTOR, NAMESAKE, ODDLY_NAMED)


@dataclass(slots=True)
class Message:
    """One activity in a conversation, as it is now. `edits` counts how often it was replaced."""

    id: str
    conversation: str
    activity: Json
    edits: int = 0

    @property
    def card(self) -> Json | None:
        cards = [a["content"] for a in self.activity.get("attachments", []) if "content" in a]
        return cards[0] if cards else None

    @property
    def text(self) -> str:
        """All that can be read, on the card or beside it."""
        return "\n".join([self.activity.get("text", ""), *texts(self.card)])

    @property
    def visible(self) -> str:
        """All that can be read without opening anything."""
        return "\n".join([self.activity.get("text", ""), *texts(self.card, hidden=False)])

    @property
    def buttons(self) -> list[str]:
        return [action["title"] for action in actions(self.card)]


def texts(element: Any, *, hidden: bool = True) -> Iterator[str]:
    """Every text of a card, top to bottom."""
    if isinstance(element, list):
        for item in element:
            yield from texts(item, hidden=hidden)
    if not isinstance(element, dict) or (element.get("isVisible") is False and not hidden):
        return
    if element.get("type") == "RichTextBlock":
        yield "".join(run if isinstance(run, str) else run["text"] for run in element["inlines"])
        return
    if element.get("type") in ("TextBlock", "TextRun"):
        yield element["text"]
    for fact in element.get("facts", []):
        yield f"{fact['title']} {fact['value']}"
    for key in ("body", "items", "columns", "rows", "cells", "card"):
        yield from texts(element.get(key), hidden=hidden)


def actions(element: Any) -> list[Json]:
    """Every button of a card in order; those of inline forms come with the title of the button that opens the form."""
    if isinstance(element, list):
        return [action for item in element for action in actions(item)]
    if not isinstance(element, dict):
        return []
    if element.get("type") == "Action.ShowCard":
        return [{**action, "title": element["title"]} for action in actions(element["card"])]
    if str(element.get("type", "")).startswith("Action."):
        return [element]
    keys = ("body", "items", "columns", "rows", "cells", "actions")
    return [action for key in keys for action in actions(element.get(key))]


def input_ids(element: Any) -> Iterator[str]:
    """The ids of all inputs of a card."""
    if isinstance(element, list):
        for item in element:
            yield from input_ids(item)
    if isinstance(element, dict):
        if str(element.get("type", "")).startswith("Input."):
            yield element["id"]
        for value in element.values():
            yield from input_ids(value)


@cache
def _first_key() -> rsa.RSAPrivateKey:
    """What Teams signs with until a test lets it take another key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(slots=True)
class _Failure:
    method: str
    status: int
    headers: Mapping[str, str]
    code: str
    times: int
    after: bool
    where: str

    def meets(self, method: str, conversation: str) -> bool:
        return self.times > 0 and self.method == method and conversation.startswith(self.where)


@dataclass
class Teams:
    """The server; an async context manager that listens on 127.0.0.1 while entered.

    `bot_url` has to be set before anybody says anything. `messages` has everything the bot posted, in order.
    """

    clock: Clock
    bot_url: str = ""
    url: str = ""
    messages: list[Message] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rosters: dict[str, Sequence[User]] = field(default_factory=dict)  # by conversation; nobody can ask about others
    page_size: int = 500
    members_gate: asyncio.Event = field(default_factory=asyncio.Event)  # closed, nobody hears who is a member
    _ids: Iterator[int] = field(default_factory=lambda: count(1_700_000_000_000))
    _failures: list[_Failure] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        self.key = _first_key()
        self.members_gate.set()
        self.key_id, self._bot_token = "key-1", f"token-{uuid.uuid4()}"
        app = web.Application()
        app.router.add_get("/openid", self._openid)
        app.router.add_get("/keys", self._keys)
        app.router.add_post("/{tenant}/oauth2/v2.0/token", self._login)
        path = "/v3/conversations/{conversation}"
        app.router.add_post(f"{path}/activities", self._post)
        app.router.add_post(f"{path}/activities/{{id}}", self._post)
        app.router.add_put(f"{path}/activities/{{id}}", self._put)
        app.router.add_get(f"{path}/members/{{id}}", self._member)
        app.router.add_get(f"{path}/pagedmembers", self._members)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        await self._runner.cleanup()

    def environment(self) -> dict[str, str]:
        """The settings of a bot that is registered here."""
        return {
            "SHIPSHAPE_BOT_APP_ID": APP_ID,
            "SHIPSHAPE_BOT_APP_PASSWORD": PASSWORD,
            "SHIPSHAPE_BOT_TENANT_ID": TENANT,
            "SHIPSHAPE_BOT_OPENID_METADATA_URL": f"{self.url}/openid",
            "SHIPSHAPE_BOT_TOKEN_ISSUER": ISSUER,
            "SHIPSHAPE_BOT_LOGIN_URL": self.url,
            "SHIPSHAPE_ALLOWED_SERVICE_HOSTS": "127.0.0.1",
        }

    # What people do

    def channel(self, name: str = "platform-images", team: str = "platform") -> "Place":
        return Place(self, f"19:{name}@thread.tacv2", "channel", ALEX, f"19:{team}@thread.tacv2")

    def group(self, name: str = "release-room") -> "Place":
        return Place(self, f"19:{name}@thread.v2", "groupChat", ALEX)

    def personal(self, user: User) -> "Place":
        return Place(self, f"a:{user.entra_id}", "personal", user)

    async def send(self, activity: Json, *, token: str | None = None) -> tuple[int, Any]:
        """Deliver an activity to the bot; its status and, if it is JSON, its answer."""
        headers = {"Authorization": f"Bearer {token or self.token(activity['serviceUrl'])}"}
        return await self.post(json.dumps(activity).encode(), headers)

    async def post(self, body: bytes, headers: Mapping[str, str]) -> tuple[int, Any]:
        """Post bytes to the bot's door."""
        typed = {"Content-Type": "application/json", **headers}
        async with self._session.post(f"{self.bot_url}/api/messages", data=body, headers=typed) as response:
            is_json = response.content_type == "application/json"
            return response.status, await response.json() if is_json else await response.text()

    def token(self, service_url: str, **changes: Any) -> str:
        """A token as the Bot Framework signs it; `changes` replace claims, None leaves one out."""
        now = self.clock.now().timestamp()
        claims: Json = {"iss": ISSUER, "aud": APP_ID, "nbf": now - 10, "exp": now + 3600, "serviceurl": service_url}
        claims = {key: value for key, value in (claims | changes).items() if value is not None}
        return jwt.encode(claims, self.key, algorithm="RS256", headers={"kid": self.key_id})

    # What the bot did

    def fail_next(
        self,
        method: str,
        status: int,
        *,
        headers: Mapping[str, str] | None = None,
        code: str = "",
        times: int = 1,
        after: bool = False,
        where: "Place | None" = None,
    ) -> None:
        """Refuse the next calls of a method, in one conversation or in all; `after` does first what was asked."""
        self._failures.append(_Failure(method, status, headers or {}, code, times, after, where.id if where else ""))

    def recover(self) -> None:
        """Refuse nothing any more."""
        self._failures.clear()

    async def until(self, condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
        """Wait until a condition holds, looking again whenever the bot calls. Fails after the deadline."""
        end = time.monotonic() + deadline_s
        while not (result := condition()):
            left = end - time.monotonic()
            if left <= 0:
                shown = "\n---\n".join(f"[{m.conversation}] {m.visible}" for m in self.messages[-6:])
                raise AssertionError(f"not within {deadline_s} s: {what}; the last messages are\n{shown}")
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), min(left, 0.1))
            except TimeoutError:
                continue
        return result

    async def until_shown(self, *words: str, where: "Place | None" = None, deadline_s: float = DEADLINE_S) -> Message:
        """Wait for a message that has all the words in sight, and return the newest such."""

        def find() -> Message | None:
            found = [m for m in self.messages if all(word in m.visible for word in words)]
            found = [m for m in found if where is None or m.conversation.startswith(where.id)]
            return found[-1] if found else None

        message: Message = await self.until(find, f"a message with {words}", deadline_s)
        return message

    # The doors

    async def _openid(self, _: web.Request) -> web.Response:
        return web.json_response({"issuer": ISSUER, "jwks_uri": f"{self.url}/keys"})

    async def _keys(self, request: web.Request) -> web.Response:
        self.calls.append(("GET", "/keys"))
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return web.json_response({"keys": [{**public, "kid": self.key_id, "endorsements": ["msteams"]}]})

    async def _login(self, request: web.Request) -> web.Response:
        self.calls.append(("POST", request.path))
        form = await request.post()
        if form.get("client_secret") != PASSWORD or form.get("client_id") != APP_ID:
            return web.json_response({"error": "invalid_client"}, status=401)
        return web.json_response({"token_type": "Bearer", "expires_in": 3600, "access_token": self._bot_token})

    async def _post(self, request: web.Request) -> web.Response:
        return await self._take(request, lambda activity: self._add(request.match_info["conversation"], activity))

    async def _put(self, request: web.Request) -> web.Response:
        return await self._take(request, lambda activity: self._replace(request.match_info["id"], activity))

    def _add(self, conversation: str, activity: Json) -> str | None:
        message = Message(id=str(next(self._ids)), conversation=conversation, activity=activity)
        self.messages.append(message)
        return message.id

    def _replace(self, activity_id: str, activity: Json) -> str | None:
        for message in self.messages:
            if message.id == activity_id:
                message.activity, message.edits = activity, message.edits + 1
                return activity_id
        return None

    async def _take(self, request: web.Request, work: Callable[[Json], str | None]) -> web.Response:
        self.calls.append((request.method, request.path))
        if request.headers.get("Authorization") != f"Bearer {self._bot_token}":
            return _error(401, "Unauthorized")
        where = request.match_info["conversation"]
        failure = next((f for f in self._failures if f.meets(request.method, where)), None)
        activity = await request.json()
        self._check(activity)
        if failure is None or failure.after:
            activity_id = work(activity)
            self._changed.set()
            if failure is None:
                return web.json_response({"id": activity_id}, status=201) if activity_id else _error(404, "NotFound")
        failure.times -= 1
        return _error(failure.status, failure.code, failure.headers)

    async def _member(self, request: web.Request) -> web.Response:
        self.calls.append((request.method, request.path))
        self._changed.set()
        await self.members_gate.wait()
        if failure := self._failure("MEMBERS"):
            return _error(failure.status, failure.code, failure.headers)
        for user in self.rosters.get(request.match_info["conversation"], USERS):
            if user.mri == request.match_info["id"]:
                return web.json_response(_account(user))
        return _error(404, "MemberNotFoundInConversation")

    async def _members(self, request: web.Request) -> web.Response:
        """A page of the roster, as the connector's description has it."""
        self.calls.append((request.method, request.path))
        if request.headers.get("Authorization") != f"Bearer {self._bot_token}":
            return _error(401, "Unauthorized")
        if failure := self._failure("MEMBERS"):
            return _error(failure.status, failure.code, failure.headers)
        roster = self.rosters.get(request.match_info["conversation"])
        if roster is None:
            return _error(404, "ConversationNotFound")
        start = int(request.query.get("continuationToken", "0"))
        end = start + min(int(request.query["pageSize"]), self.page_size)
        page: Json = {"members": [_account(user) for user in roster[start:end]]}
        page |= {"continuationToken": str(end)} if end < len(roster) else {}
        if validator := _validator("PagedMembersResult"):
            self.problems += [f"{e.json_path}: {e.message[:200]}" for e in validator.iter_errors(page)]
        return web.json_response(page)

    def _failure(self, method: str) -> _Failure | None:
        failure = next((f for f in self._failures if f.method == method and f.times > 0), None)
        if failure:
            failure.times -= 1
        return failure

    def _check(self, activity: Json) -> None:
        """Note what the connector's own description does not allow, and what is too large for Teams."""
        if len(json.dumps(activity)) > 28_000:
            self.problems.append("an activity is larger than Teams takes")
        self._check_mentions(activity)
        if validator := _validator():
            self.problems += [f"{e.json_path}: {e.message[:200]}" for e in validator.iter_errors(activity)]

    def _check_mentions(self, activity: Json) -> None:
        """Every mention is in the text, and they can be told apart by theirs."""
        said = [entity["text"] for entity in activity.get("entities", []) if entity.get("type") == "mention"]
        if len(said) != len(set(said)) or any(text not in activity.get("text", "") for text in said):
            self.problems.append(f"Teams would not know who is meant by {said}")


@dataclass(frozen=True, slots=True)
class Place:
    """A conversation with the bot in it; `owner` speaks when nobody else is named."""

    teams: Teams
    id: str
    kind: str
    owner: User
    team: str = ""

    async def install(self) -> None:
        """Add the bot, as Teams tells it."""
        activity = {"type": "installationUpdate", "action": "add"}
        status, _ = await self.teams.send(self.activity(None, activity))
        assert status == 200

    async def say(self, text: str, user: User | None = None) -> tuple[int, Any]:
        """Type a message; in a channel it mentions the bot, as it has to."""
        activity: Json = {"type": "message", "text": text, "textFormat": "plain"}
        if self.kind == "channel":
            mention = "<at>Shipshape</at>"
            entity = {"type": "mention", "mentioned": BOT, "text": mention}
            activity |= {"text": f"{mention} {text}", "entities": [entity]}
        return await self.teams.send(self.activity(user, activity))

    async def ask(self, text: str, user: User | None = None) -> Message:
        """Type a message and return the bot's last answer to it."""
        before = len(self.teams.messages)
        status, answer = await self.say(text, user)
        assert status == 200, answer
        replies = self.teams.messages[before:]
        assert replies, f"no answer to {text!r}"
        return replies[-1]

    async def press(self, message: Message, title: str, user: User | None = None, nth: int = 0, **inputs: str) -> Json:
        """Press a button of a card and return the bot's private answer."""
        action = [a for a in actions(message.card) if a["title"] == title][nth]
        target = action.get("data", {}).get("target", "")
        filled = {f"{name}.{target}": text for name, text in inputs.items()}
        missing = filled.keys() - set(input_ids(message.card))
        assert not missing, f"the card has no inputs {missing}"
        return await self.invoke(action["verb"], action.get("data", {}) | filled, user, message.id)

    async def invoke(self, verb: str, data: Json, user: User | None = None, reply_to: str = "0") -> Json:
        """What Teams sends for a button, also for one that no card has any more."""
        action = {"type": "Action.Execute", "verb": verb, "data": data}
        value = {"action": action, "trigger": "manual"}
        activity = {"type": "invoke", "name": "adaptiveCard/action", "value": value, "replyToId": reply_to}
        status, answer = await self.teams.send(self.activity(user, activity))
        assert status == 200, answer
        assert isinstance(answer, dict)
        return answer

    def activity(self, user: User | None, activity: Json) -> Json:
        user = user or self.owner
        data: Json = {"tenant": {"id": TENANT}}
        if self.kind == "channel":
            name = self.id[3:].partition("@")[0].replace("-", " ").capitalize()
            data |= {"channel": {"id": self.id, "name": name}, "team": {"id": self.team}}
        return {
            "id": str(uuid.uuid4()),
            "channelId": "msteams",
            "serviceUrl": self.teams.url,
            "from": {"id": user.mri, "name": user.name, "aadObjectId": user.entra_id},
            "recipient": BOT,
            "conversation": {"id": self.id, "conversationType": self.kind, "tenantId": TENANT},
            "channelData": data,
            **activity,
        }


def _error(status: int, code: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"code": code, "message": code}}, status=status, headers=headers)


def _account(user: User) -> Json:
    account = {"id": user.mri, "name": user.name, "aadObjectId": user.entra_id}
    return {**account, "userPrincipalName": user.principal_name}


def _validator(definition: str = "Activity") -> Draft4Validator | None:
    if not CONTRACT.exists():
        return None
    document = json.loads(CONTRACT.read_text("utf-8-sig"))
    return Draft4Validator({"$ref": f"#/definitions/{definition}", "definitions": document["definitions"]})
