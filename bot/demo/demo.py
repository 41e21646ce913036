"""`make demo`: the local world, the production program as a process of its own, and Microsoft's chat page."""

import asyncio
import logging
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from bot.catalog import load
from bot.config import read
from bot.demo.playground import CHANNEL_ID, Playground, find_playground
from bot.demo.runs import AgentRun
from bot.demo.world import LocalWorld
from bot.errors import PeerUnavailable

CATALOG = Path(__file__).with_name("catalog.yml")
PORTS = (56151, 56152, 56153)
PLAYGROUND_PORT = 56150
DURATIONS = {"Build": 8.0, "Test": 6.0, "Push": 4.0}
FAILING = "dotnet-aspnet-10"
STARTING_S, LOOK_EVERY_S, UNTIL_BASE_MOVES_S = 60, 0.2, 15


async def run_demo(directory: Path, *, fresh: bool, stopped: asyncio.Event) -> None:
    """Run until stopped. Raises PeerUnavailable when the bot or the chat page does not start."""
    if fresh:
        shutil.rmtree(directory, ignore_errors=True)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # moto would print every request
    catalog = load(CATALOG)
    async with AsyncExitStack() as stack:
        world = LocalWorld(directory / "world", catalog, durations=DURATIONS, fails=_fails, ports=PORTS)
        await stack.enter_async_context(world)
        world.seed()
        environment = _settings(directory, world)
        settings = read(environment)
        bot_url = f"http://{settings.host}:{settings.port}"
        await stack.enter_async_context(_bot(bot_url, environment))
        cli = find_playground()
        if cli:
            page = Playground(cli, directory / "playground", bot_url=f"{bot_url}/api/messages", port=PLAYGROUND_PORT)
            await stack.enter_async_context(page)
        _say(_welcome(f"http://127.0.0.1:{PLAYGROUND_PORT}" if cli else None))
        story = asyncio.create_task(_story(world, directory, bot_url, has_page=cli is not None))
        stack.callback(story.cancel)
        await stopped.wait()
        _say(["", "Stopping. `make demo` goes on where this ended; `shipshape demo --fresh` starts anew."])


def _settings(directory: Path, world: LocalWorld) -> dict[str, str]:
    """The ordinary settings of a bot that lives here; what the caller has set for SHIPSHAPE_PORT and so on wins."""
    return {
        "SHIPSHAPE_CATALOG": str(CATALOG),
        "SHIPSHAPE_DATABASE_URL": f"sqlite+aiosqlite:///{(directory / 'shipshape.db').absolute()}",
        "SHIPSHAPE_ALLOW_ANONYMOUS": "true",
        "SHIPSHAPE_SCHEDULE": "* * * * *",
        "SHIPSHAPE_POLL_INTERVAL": "1",
        "SHIPSHAPE_LOG_LEVEL": "WARNING",
        **{key: value for key, value in os.environ.items() if key.startswith("SHIPSHAPE_")},
        **world.environment(),
    }


@asynccontextmanager
async def _bot(url: str, environment: dict[str, str]) -> AsyncIterator[None]:
    """`shipshape serve`, the production program, from ready to its orderly end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "serve", env={**os.environ, **environment}, start_new_session=True
    )
    try:
        await _until_ready(url, process)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _until_ready(url: str, process: asyncio.subprocess.Process) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(STARTING_S):
        while process.returncode is None:
            try:
                async with session.get(f"{url}/readyz") as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(LOOK_EVERY_S)
    raise PeerUnavailable(f"the bot did not start; is something else listening at {url}?")


async def _story(world: LocalWorld, directory: Path, bot_url: str, *, has_page: bool) -> None:
    """Once somebody is in the chat: the bot is installed in the channel, and some seconds later two bases move."""
    await _until_somebody_is_there(bot_url)
    if has_page:
        async with aiohttp.ClientSession() as session:
            await session.post(
                f"http://127.0.0.1:{PLAYGROUND_PORT}/_debug/conversation/{CHANNEL_ID}/installation", json={}
            )
    told = directory / "bases-moved"
    if told.exists():
        return
    await asyncio.sleep(UNTIL_BASE_MOVES_S)
    for name in ("dotnet-sdk-6", FAILING):
        base = world.catalog[name].base
        assert base is not None
        world.move_base(base)
    told.touch()
    _say(["Microsoft has published new base images. The next check, at the full minute, tells the channel."])


async def _until_somebody_is_there(bot_url: str) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{bot_url}/metrics") as response:
                if "shipshape_turns_total 0.0" not in await response.text():
                    return
            await asyncio.sleep(LOOK_EVERY_S)


def _fails(run: AgentRun) -> tuple[str, Iterable[str]] | None:
    if run.parameters["image"] != FAILING:
        return None
    return "Test", (
        "GET http://127.0.0.1:8080/ expected 200, got 500",
        "Unhandled exception. System.IO.FileNotFoundException: libicu.so.74",
    )


def _welcome(page: str | None) -> list[str]:
    chat = (
        ["  chat        " + page] if page else ["  chat        shipshape chat (Node.js is not here, so no chat page)"]
    )
    return [
        "",
        "Shipshape is running in a local world. Nothing leaves this machine.",
        "",
        *chat,
        "  terminal    .venv/bin/shipshape chat",
        "",
        "Try: help · list · status dotnet-sdk-6 · rebuild dotnet-aspnet-6",
        f"Some seconds after you open the chat, new base images appear. {FAILING} is the one whose test fails.",
        "Ctrl-C ends it.",
    ]


def _say(lines: list[str]) -> None:
    print("\n".join(lines), flush=True)
