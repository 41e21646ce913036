"""`make demo`: the local world, the production program as a process of its own, and Microsoft's chat page."""

import asyncio
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from bot.catalog.catalog import load
from bot.config import Settings, read
from bot.demo.ecr import LocalScan
from bot.demo.playground import CHANNEL_ID, CHANNEL_NAME, NO_PROXY, Playground, find_playground
from bot.demo.release_metadata import CHANNELS
from bot.demo.runs import AgentRun
from bot.demo.world import LocalWorld
from bot.errors import ConfigError, PeerUnavailable

CATALOG = Path(__file__).with_name("catalog.yml")
PEERS = ("the chat page", "the registry", "ECR", "Azure DevOps", "the release metadata")
CHOSEN_BY_CALLER = ("SHIPSHAPE_PORT", "SHIPSHAPE_LOG_LEVEL")
CHECK_EVERY_S, UNTIL_BASES_MOVE_S = 5, 15
DURATIONS = {"Build": 8.0, "Test": 6.0, "Push": 4.0}
MOVING = {"dotnet-sdk-6": "6.0.35", "dotnet-aspnet-10": None}  # a security release, and a rebuild of the same .NET
FAILING = "dotnet-aspnet-10"
UPDATED = "dotnet-sdk-6"
FIXED = CHANNELS["6.0"].release("6.0.35").cves
REMAINING = ("CVE-2023-31484",)  # perl of Debian 11
STARTING_S, CHECKING_S, STOPPING_S, LOOK_EVERY_S = 60, 1, 30, 0.2


async def run_demo(directory: Path, *, fresh: bool, ports_from: int, stopped: asyncio.Event) -> None:
    """Run until stopped. `ports_from` is the chat page's port; the peers take the four after it.

    Raises ConfigError for a port that is taken, PeerUnavailable when the bot or the chat page does not start or ends.
    """
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, stopped.set)  # the terminal was closed
    running = asyncio.create_task(_run(directory, fresh=fresh, ports=range(ports_from, ports_from + len(PEERS))))
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if running.cancel():
        _say("", "Stopping. `make demo` goes on from here; `shipshape demo --fresh` starts anew.")
    with suppress(asyncio.CancelledError):
        await running


async def _run(directory: Path, *, fresh: bool, ports: range) -> None:
    own = _settings(directory)
    settings = read(own, env_file=None)
    _must_be_free({settings.port: "the bot (SHIPSHAPE_PORT)", **dict(zip(ports, PEERS, strict=True))})
    if fresh:
        _forget(directory)
    goes_on = (directory / "world").exists()
    for key in [key for key in os.environ if key.startswith("AWS_")]:
        del os.environ[key]  # moto would look for the caller's profile
    _say("Starting the local world …")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # moto would print every request
    async with AsyncExitStack() as stack:
        world = LocalWorld(
            directory / "world",
            load(CATALOG),
            durations=DURATIONS,
            fails=_fails,
            ports=(ports[1], ports[2], ports[3], ports[4]),
        )
        await stack.enter_async_context(world)
        world.seed()
        world.ecr.scans |= _scans(world)
        url = f"http://{settings.host}:{settings.port}"
        page = await stack.enter_async_context(_page(directory, f"{url}/api/messages", ports[0]))
        peers = {**world.environment(), "SHIPSHAPE_ECR_EVENTS_QUEUE_URL": world.ecr.open_queue()}
        bot = await stack.enter_async_context(_bot(directory, url, {**own, **peers}))
        await _until_checked(world)
        _say(*_welcome(settings, page, goes_on=goes_on))
        await asyncio.gather(_story(world, directory, url, page), _until_ended(bot))


def _settings(directory: Path) -> dict[str, str]:
    """The ordinary settings of a bot that lives here. Those of a real one, which the caller may have, stay out."""
    return {
        "SHIPSHAPE_CATALOG": str(CATALOG),
        "SHIPSHAPE_DATABASE_URL": f"sqlite+aiosqlite:///{(directory / 'shipshape.db').absolute()}",
        "SHIPSHAPE_ALLOW_ANONYMOUS": "true",
        "SHIPSHAPE_SCHEDULE": f"*/{CHECK_EVERY_S} * * * * *",
        "SHIPSHAPE_POLL_INTERVAL": "1",
        "SHIPSHAPE_LOG_LEVEL": "ERROR",  # that a chat which was closed cannot be reached is no news here
        **{key: os.environ[key] for key in CHOSEN_BY_CALLER if key in os.environ},
    }


def _must_be_free(ports: Mapping[int, str]) -> None:
    """Raises ConfigError, with a sentence for each port that somebody else has."""
    problems = []
    for port, whose in ports.items():
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            problems.append(f"port {port} for {whose} cannot be used: {os.strerror(error.errno or 0).lower()}")
    if problems:
        hint = "is another demo running? Otherwise choose ports with SHIPSHAPE_PORT and --ports-from"
        raise ConfigError([*problems, hint])


def _forget(directory: Path) -> None:
    """Only what a demo made: the directory may be one that holds other things."""
    for folder in ("world", "playground"):
        shutil.rmtree(directory / folder, ignore_errors=True)
    for file in (_told(directory), *directory.glob("shipshape.db*")):
        file.unlink(missing_ok=True)


def _told(directory: Path) -> Path:
    return directory / "bases-moved"


@asynccontextmanager
async def _page(directory: Path, bot_url: str, port: int) -> AsyncIterator[Playground | None]:
    """The chat page, None where it is not installed."""
    cli = find_playground()
    if cli is None:
        yield None
        return
    async with Playground(cli, directory / "playground", bot_url=bot_url, port=port) as page:
        yield page


@asynccontextmanager
async def _bot(directory: Path, url: str, settings: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """`shipshape serve`, the production program, from ready to its orderly end."""
    others = {key: value for key, value in os.environ.items() if not key.startswith("SHIPSHAPE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot", "serve"),
        env={**others, **NO_PROXY, **settings},
        cwd=directory,  # away from the .env of a real bot
        start_new_session=True,  # Ctrl-C is ours, and the bot is told when it is its turn
    )
    try:
        await _until_ready(url, process)
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOPPING_S)
        except TimeoutError:
            process.kill()
            await process.wait()


async def _until_ready(url: str, process: asyncio.subprocess.Process) -> None:
    with suppress(TimeoutError):
        async with aiohttp.ClientSession() as session, asyncio.timeout(STARTING_S):
            while process.returncode is None:
                with suppress(aiohttp.ClientError):
                    async with session.get(f"{url}/readyz") as response:
                        if response.status == 200:
                            return
                await asyncio.sleep(LOOK_EVERY_S)
    raise PeerUnavailable("the bot did not start; the reason is above")


async def _until_checked(world: LocalWorld) -> None:
    """Let the first check pass before anybody looks: it finds nothing, and `list` has something to tell."""
    for _ in range(round(3 * CHECK_EVERY_S / LOOK_EVERY_S)):
        if world.registry.requests:
            await asyncio.sleep(CHECKING_S)
            return
        await asyncio.sleep(LOOK_EVERY_S)


async def _until_ended(bot: asyncio.subprocess.Process) -> None:
    raise PeerUnavailable(f"the bot ended by itself with exit code {await bot.wait()}")


async def _story(world: LocalWorld, directory: Path, bot_url: str, page: Playground | None) -> None:
    """Once somebody is in the chat: the bot is installed in the channel, and some seconds later two bases move."""
    async with aiohttp.ClientSession() as session:
        await _until_somebody_is_there(session, f"{bot_url}/metrics")
        if page:
            await session.post(f"{page.url}/_debug/conversation/{CHANNEL_ID}/installation", json={})
    if _told(directory).exists():
        return
    await asyncio.sleep(UNTIL_BASES_MOVE_S)
    for name, version in MOVING.items():
        base = world.catalog[name].base
        assert base is not None
        world.move_base(base, version=version)
    _told(directory).touch()
    if page:
        _say(f"Two base images have moved. The channel {CHANNEL_NAME} is told in a moment.")
    else:
        _say("Two base images have moved. Type check in the chat; after subscribe it is told by itself.")


async def _until_somebody_is_there(session: aiohttp.ClientSession, metrics_url: str) -> None:
    while True:
        with suppress(aiohttp.ClientError):
            async with session.get(metrics_url) as response:
                if "shipshape_turns_total 0.0" not in await response.text():
                    return
        await asyncio.sleep(LOOK_EVERY_S)


def _scans(world: LocalWorld) -> dict[str, LocalScan]:
    """What the first update fixes, by the version it replaces and its own."""
    image = world.catalog[UPDATED]
    return {
        f"{image.tag}-1.3.0": LocalScan(findings=tuple(map(_finding, (*FIXED, *REMAINING)))),
        f"{image.tag}-1.4.0": LocalScan(findings=tuple(map(_finding, REMAINING))),
    }


def _finding(name: str) -> dict[str, object]:
    return {"name": name, "severity": "HIGH", "uri": f"https://nvd.nist.gov/vuln/detail/{name}"}


def _fails(run: AgentRun) -> tuple[str, Iterable[str]] | None:
    if run.parameters["image"] != FAILING:
        return None
    return "Test", (
        "GET http://127.0.0.1:8080/ expected 200, got 500",
        "Unhandled exception. System.IO.FileNotFoundException: libicu.so.74",
    )


def _welcome(settings: Settings, page: Playground | None, *, goes_on: bool) -> list[str]:
    command = Path(sys.executable).with_name("shipshape")
    command = command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else command
    away = settings.port != Settings.model_fields["port"].default
    terminal = f"{command} chat" + (f" --url http://{settings.host}:{settings.port}" if away else "")
    moves = f"Some seconds after you open the chat two base images move, {' and '.join(MOVING)}."
    again = "Going on where the last demo ended. The chat page has forgotten what it showed: type list or pending."
    return [
        "",
        "Shipshape is running in a local world, without any account.",
        "",
        *([f"  chat page   {page.url}"] if page else []),
        f"  terminal    {terminal}",
        *([] if page else ["", "There is no chat page: it needs Node.js with npm, and then `make demo` once more."]),
        "",
        "Try: help · list · status dotnet-sdk-6 · rebuild dotnet-aspnet-6",
        again if goes_on else moves,
        f"The test of {FAILING} fails, to show what that looks like.",
        "Ctrl-C ends the demo.",
        "",
    ]


def _say(*lines: str) -> None:
    print("\n".join(lines), flush=True)
