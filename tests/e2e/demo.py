"""`shipshape demo` as a process: the real command, in a folder of its own and at free ports."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

START_S, STOP_S = 30, 30
SHIPSHAPE = Path(sys.executable).with_name("shipshape")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a demo keeps its state, and its ports: the bot's, and the first of the four others."""

    directory: Path
    bot_port: int
    ports_from: int

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self.ports_from}"

    @property
    def bot(self) -> str:
        return f"http://127.0.0.1:{self.bot_port}"

    @property
    def ports(self) -> list[int]:
        return [self.bot_port, *range(self.ports_from, self.ports_from + 5)]

    @property
    def runs(self) -> list[dict[str, Any]]:
        """Every run that Azure DevOps was asked for, in order."""
        file = self.directory / "world" / "runs.json"
        return json.loads(file.read_bytes()) if file.exists() else []


@dataclass(slots=True)
class Demo:
    """A running demo and what it has printed."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    _said: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    async def read(self) -> None:
        assert self.process.stdout
        async for line in self.process.stdout:
            self.lines.append(line.decode().rstrip("\n"))
            self._said.set()

    async def until_said(self, words: str) -> None:
        """Raises AssertionError when it has not said it in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                while words not in self.text:
                    self._said.clear()
                    await self._said.wait()
        assert words in self.text, f"it said: {self.text[-2000:]}"

    async def stop(self) -> int:
        """Press Ctrl-C. Returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return await asyncio.wait_for(self.process.wait(), STOP_S)


def free_place(directory: Path) -> Place:
    """Six ports that are free now, five of them in a row; another process of tests looks elsewhere first."""
    sixes = range(20_000, 30_000, 6)
    mine = os.getpid() % len(sixes)
    for first in (*sixes[mine:], *sixes[:mine]):
        place = Place(directory=directory, bot_port=first, ports_from=first + 1)
        if all(map(is_free, place.ports)):
            return place
    raise AssertionError("no six free ports")


def is_free(port: int) -> bool:
    """Whether a server could listen there."""
    try:
        with closing(socket.create_server(("127.0.0.1", port))):
            return True
    except OSError:
        return False


@asynccontextmanager
async def started(
    place: Place, *arguments: str, environment: Mapping[str, str] = {}, directory: Path | None = None
) -> AsyncIterator[Demo]:
    """Start the command, in the current directory or another; it is stopped at the end, if it still runs then."""
    options = ("--directory", str(place.directory), "--ports-from", str(place.ports_from), *arguments)
    process = await asyncio.create_subprocess_exec(
        *(str(SHIPSHAPE), "demo", *options),
        env={**os.environ, "SHIPSHAPE_PORT": str(place.bot_port), **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=directory,
    )
    demo = Demo(process)
    reading = asyncio.create_task(demo.read())
    try:
        yield demo
    finally:
        if process.returncode is None:
            await demo.stop()
        await reading
