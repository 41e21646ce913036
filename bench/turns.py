"""Message turns per second, and the time from start to ready: `python -m bench.turns`.

One driver posts `status` to the bot and to the stock echo bot of botbuilder, each a process of its own, with 16 turns
in flight; the best of three. A turn counts when its answer has arrived at the connector, which the driver plays too.
"""

import asyncio
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from bot.catalog.catalog import load
from bot.demo.demo import CATALOG
from bot.demo.world import LocalWorld

IN_FLIGHT, ROUNDS = 16, 3
ECHO = """
import sys
from aiohttp import web
from botbuilder.core import ActivityHandler
from botbuilder.integration.aiohttp import CloudAdapter, ConfigurationBotFrameworkAuthentication

class Settings:
    PORT, APP_ID, APP_PASSWORD = int(sys.argv[1]), "", ""

class Echo(ActivityHandler):
    async def on_message_activity(self, turn_context):
        await turn_context.send_activity("You said " + turn_context.activity.text)

adapter, echo = CloudAdapter(ConfigurationBotFrameworkAuthentication(Settings())), Echo()
app = web.Application()
app.router.add_post("/api/messages", lambda request: adapter.process(request, echo))
web.run_app(app, host="127.0.0.1", port=Settings.PORT, print=None, access_log=None)
"""
IMPORTS = "import bot.app, alembic.command, azure.devops.connection, boto3, apscheduler.schedulers.asyncio"


class Sink:
    """The connector: takes every answer and counts it."""

    def __init__(self) -> None:
        self.url = ""
        self.answers = 0

    async def take(self, request: web.Request) -> web.Response:
        await request.read()
        self.answers += 1
        return web.json_response({"id": str(self.answers)}, status=201)


@asynccontextmanager
async def connector() -> AsyncIterator[Sink]:
    sink = Sink()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", sink.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    sink.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield sink
    await runner.cleanup()


@contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


async def until_answered(url: str) -> None:
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        while True:
            try:
                async with session.get(url):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(0.005)


async def turns_per_second(url: str, sink: Sink, text: str, turns: int) -> float:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:

        async def turn() -> None:
            async with session.post(f"{url}/api/messages", json=message(sink.url, text)) as response:
                assert response.status in (200, 201), response.status

        await turn()
        rates = []
        for _ in range(ROUNDS):
            sink.answers = 0
            start = time.perf_counter()
            await asyncio.gather(*(turn() for _ in range(turns)))
            rates.append(turns / (time.perf_counter() - start))
            assert sink.answers == turns
    return max(rates)


def message(service_url: str, text: str) -> dict[str, object]:
    return {
        "type": "message",
        "id": str(uuid.uuid4()),
        "text": text,
        "channelId": "msteams",
        "serviceUrl": service_url,
        "from": {"id": "29:alex", "name": "Alex Wilber", "aadObjectId": str(uuid.UUID(int=1))},
        "recipient": {"id": "28:shipshape", "name": "Shipshape"},
        "conversation": {"id": "a:alex", "conversationType": "personal"},
    }


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def seconds_to_import() -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)
        times.append(time.perf_counter() - start)
    return min(times)


async def seconds_to_ready(environment: dict[str, str]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        with running([sys.executable, "-m", "bot", "serve"], environment):
            await until_answered(f"http://127.0.0.1:{environment['SHIPSHAPE_PORT']}/readyz")
            times.append(time.perf_counter() - start)
    return min(times)


async def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # moto would print every request
    with tempfile.TemporaryDirectory() as folder:
        async with LocalWorld(Path(folder), load(CATALOG)) as world, connector() as sink:
            world.seed()
            environment = {
                "SHIPSHAPE_CATALOG": str(CATALOG),
                "SHIPSHAPE_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/bench.db",
                "SHIPSHAPE_PORT": str(free_port()),
                "SHIPSHAPE_ALLOW_ANONYMOUS": "true",
                "SHIPSHAPE_LOG_LEVEL": "WARNING",
                **world.environment(),
            }
            imports, ready = seconds_to_import(), await seconds_to_ready(environment)
            print(f"imports alone {imports:.2f} s, start to ready {ready:.2f} s: {ready / imports:.2f} x")
            url = f"http://127.0.0.1:{environment['SHIPSHAPE_PORT']}"
            with running([sys.executable, "-m", "bot", "serve"], environment):
                await until_answered(f"{url}/readyz")
                await turns_per_second(url, sink, "check", 1)
                ours = await turns_per_second(url, sink, "status dotnet-sdk-6", 1000)
            port = free_port()
            with running([sys.executable, "-c", ECHO, str(port)], {}):
                await until_answered(f"http://127.0.0.1:{port}/")
                echo = await turns_per_second(f"http://127.0.0.1:{port}", sink, "status dotnet-sdk-6", 200)
            print(f"status {ours:.0f} turns/s, stock echo bot {echo:.0f} turns/s: {ours / echo:.1f} x")


asyncio.run(main())
