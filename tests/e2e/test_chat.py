"""The terminal chat, as a process that talks to a running bot."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bot.chat import TENANT
from tests.conftest import Bot, StartBot
from tests.e2e.demo import SHIPSHAPE

OPEN = {"ALLOW_ANONYMOUS": "true", "ALLOWED_TENANTS": TENANT}
PIPE = asyncio.subprocess.PIPE
WAIT_S = 15


class Terminal:
    """A person at `shipshape chat`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def type(self, line: str, *, until: str) -> str:
        """Type a line. Returns what is printed from then on up to the line with `until`."""
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n".encode())
        return await self.read(until)

    async def read(self, until: str) -> str:
        assert self.process.stdout
        said = ""
        async with asyncio.timeout(WAIT_S):
            while until not in said:
                line = await self.process.stdout.readline()
                assert line, f"it ended after: {said}"
                said += line.decode()
        return said


def heed_ctrl_c() -> None:
    """As in a terminal. What a shell runs in its background, tests and all, ignores Ctrl-C from the start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@asynccontextmanager
async def terminal(bot: Bot, *options: str) -> AsyncIterator[Terminal]:
    process = await asyncio.create_subprocess_exec(
        *(str(SHIPSHAPE), "chat", "--url", bot.app.url, *options),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        preexec_fn=heed_ctrl_c,
    )
    try:
        yield Terminal(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_suggestion_is_run_by_its_button(start_bot: StartBot) -> None:
    """The button below a typo shows the card that the right spelling shows, with days and times to read."""
    async with start_bot(**OPEN) as bot, terminal(bot) as chat:
        await chat.type("status dotnet-skd-6", until="[!1] status dotnet-sdk-6")
        card = await chat.type("!1", until="History")
        assert "dotnet-sdk-6 · fresh" in card
        assert "pushed " in card
        assert "{{" not in card


async def test_the_reason_is_typed_after_the_button(start_bot: StartBot) -> None:
    """A button with an input shows its name, and what is typed after `!N` fills it in."""
    async with start_bot(**OPEN) as bot, terminal(bot) as chat:
        bot.move_base("dotnet-sdk-6")
        await chat.type("check", until="[!1] Approve  [!2 REASON] Reject…")
        await chat.type("!2 breaks our proxy", until="Rejected")
        rows = await bot.app.store.audit_rows()
        assert (rows[-1]["action"], rows[-1]["comment"]) == ("reject", "breaks our proxy")


async def test_ctrl_c_ends_it_while_it_waits_for_a_line(start_bot: StartBot) -> None:
    """Ctrl-C needs no Enter after it, and prints no traceback."""
    async with start_bot(**OPEN) as bot, terminal(bot) as chat:
        await chat.read("Type a command")
        chat.process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(chat.process.wait(), WAIT_S) == 130
        assert chat.process.stderr
        assert b"Traceback" not in await chat.process.stderr.read()


async def test_no_bot_is_told_at_once(start_bot: StartBot) -> None:
    """Where nothing listens, the chat says so before anybody types."""
    async with start_bot(**OPEN) as bot:
        gone = bot
    async with terminal(gone) as chat:
        assert await asyncio.wait_for(chat.process.wait(), WAIT_S) == 1
        assert chat.process.stderr
        assert b"no bot answers" in await chat.process.stderr.read()
