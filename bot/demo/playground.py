"""Microsoft 365 Agents Playground, a stand-in for Teams in the browser, as a child process.

It has one personal chat, one group chat and one team, keeps everything in memory and sends no token, so the bot has to
accept anonymous calls. https://learn.microsoft.com/microsoftteams/platform/toolkit/debug-your-agents-playground
"""

import asyncio
import json
import os
import shutil
import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bot.errors import PeerUnavailable

TENANT_ID = "00000000-0000-4000-8000-000000000001"
BOT_ID = "28:shipshape"
BOT_NAME = "Shipshape"
PERSONAL_CHAT_ID = "a:personal"
GROUP_CHAT_ID = "19:release-crew@thread.v2"
GROUP_CHAT_NAME = "Release crew"
TEAM_ID = "19:platform-team@thread.tacv2"
TEAM_NAME = "Platform team"
CHANNEL_ID = "19:platform-images@thread.tacv2"
CHANNEL_NAME = "platform-images"

# Everything a local process talks to is on this machine. Libraries differ in which spelling they prefer.
NO_PROXY = {"NO_PROXY": "*", "no_proxy": "*"}

_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5.0
_PRELOADED = Path(__file__).with_name("playground.cjs")
_PACKAGE = Path(".cache/playground/node_modules/@microsoft/m365agentsplayground")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody in the local tenant. `id` is what activities carry, `entra_id` their aadObjectId."""

    id: str
    entra_id: str
    given_name: str
    surname: str
    email: str

    @property
    def name(self) -> str:
        return f"{self.given_name} {self.surname}"


def _person(number: int, given_name: str, surname: str) -> Person:
    return Person(
        id=f"29:{given_name.lower()}-{surname.lower()}",
        entra_id=f"00000000-0000-4000-8000-0000000001{number:02}",
        given_name=given_name,
        surname=surname,
        email=f"{given_name.lower()}.{surname.lower()}@contoso.com",
    )


ALEX = _person(0, "Alex", "Wilber")
MEGAN = _person(1, "Megan", "Bowen")
# The Playground wants exactly five people besides the one who sits at the screen.
COLLEAGUES = (
    MEGAN,
    _person(2, "Adele", "Vance"),
    _person(3, "Isaiah", "Langer"),
    _person(4, "Patti", "Fernandez"),
    _person(5, "Lynne", "Robbins"),
)


def find_playground() -> Path | None:
    """The installed Playground's `cli.js`, or None without it or without Node."""
    cli = Path(__file__).resolve().parents[2] / _PACKAGE / "cli.js"
    return cli if cli.is_file() and shutil.which("node") else None


def configuration() -> dict[str, Any]:
    """The content of `.m365agentsplayground.yml`. The Playground adds a channel "General" of its own."""
    return {
        "version": "0.1.1",
        "tenantId": TENANT_ID,
        "bot": {"id": BOT_ID, "name": BOT_NAME},
        "currentUser": _user(ALEX),
        "users": [_user(person) for person in COLLEAGUES],
        "personalChat": {"id": PERSONAL_CHAT_ID},
        "groupChat": {"id": GROUP_CHAT_ID, "name": GROUP_CHAT_NAME},
        "team": {
            "id": TEAM_ID,
            "name": TEAM_NAME,
            "aadGroupId": "00000000-0000-4000-8000-000000000002",
            "channels": [{"id": CHANNEL_ID, "name": CHANNEL_NAME}],
        },
    }


class Playground:
    """One Playground on loopback, from `async with` to its end.

    `directory` gets its configuration and log. `bot_url` is the bot's messages endpoint; the page stays blank until
    something listens there. Port 0 is any free one. Raises PeerUnavailable when it does not start.
    """

    def __init__(self, cli: Path, directory: Path, *, bot_url: str, port: int = 0) -> None:
        self.port = port or _free_port()
        self._command = start_command(cli, bot_url=bot_url, port=self.port)
        self._directory = directory
        self._log = directory / "playground.log"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """The page to open in a browser."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        # JSON is YAML too, and needs no thought about quoting ids like "29:1".
        (self._directory / ".m365agentsplayground.yml").write_text(json.dumps(configuration(), indent=2))
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=self._directory,
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C in a terminal would end it before the bot has said its last word
        )
        try:
            await self._wait_until_ready(self._process)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        line = b""
        with suppress(TimeoutError):
            line = await asyncio.wait_for(process.stdout.readline(), _START_TIMEOUT_S)
        # When the port is taken it takes another one, and the service URL it tells the bot would be wrong.
        if line.decode(errors="replace").strip() != f"Listening on {self.port}":
            said = self._log.read_text() if self._log.exists() else line.decode(errors="replace")
            raise PeerUnavailable(f"Agents Playground did not start on port {self.port}: {said.strip() or 'no output'}")

    def _environment(self) -> dict[str, str]:
        return os.environ | {
            "M365_AGENTS_PLAYGROUND_LOGFILE": str(self._log.absolute()),
            "TEAMSAPPTESTER_BROWSER": "none",
            # --disable-telemetry leaves the telemetry library's own statistics on, which call Azure.
            "APPLICATION_INSIGHTS_NO_STATSBEAT": "1",
            **NO_PROXY,
        }


def start_command(cli: Path, *, bot_url: str, port: int) -> list[str]:
    """The command line that starts the Playground at `port`, without telemetry and for this machine only."""
    options = {
        "--app-endpoint": bot_url,
        "--channel-id": "msteams",
        "--port": str(port),
        "--service-url": f"http://127.0.0.1:{port}/_connector",
    }
    arguments = [word for option in options.items() for word in option]
    return ["node", "--require", str(_PRELOADED), str(cli), *arguments, "--disable-telemetry"]


def _user(person: Person) -> dict[str, str]:
    return {
        "id": person.id,
        "name": person.name,
        "userPrincipleName": person.email,  # spelt like this in its schema
        "aadObjectId": person.entra_id,
        "givenName": person.given_name,
        "surname": person.surname,
        "email": person.email,
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
