"""Runs one script of pipelines/scripts as an agent does, without a pipeline around it."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.pipelines.programs import SEARCH_PATH

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How a script ended. `lines` is what it printed, on both streams."""

    code: int
    lines: list[str]

    @property
    def outputs(self) -> dict[str, str]:
        """Its output variables."""
        start = "##vso[task.setvariable variable="
        found = [line.removeprefix(start).partition(";isOutput=true]") for line in self.lines if line.startswith(start)]
        return {name: value for name, _, value in found}


@asynccontextmanager
async def started(
    name: str, environment: Mapping[str, str], checkout: Path = ROOT
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A script under way."""
    process = await asyncio.create_subprocess_exec(
        "bash",
        str(checkout / "pipelines/scripts" / name),
        env={"HOME": os.environ["HOME"], "PATH": SEARCH_PATH, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run_script(name: str, environment: Mapping[str, str], checkout: Path = ROOT) -> Done:
    """Run a script to its end."""
    async with started(name, environment, checkout) as process:
        return await end_of(process)


async def end_of(process: asyncio.subprocess.Process) -> Done:
    printed, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return Done(code=process.returncode, lines=printed.decode().splitlines())
