"""A checkout with one image, the Azure DevOps that builds it, and the registry it goes to."""

import asyncio
import json
import logging
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bot.core.images import Digest
from bot.demo.ecr import LocalEcr
from bot.demo.runs import Definition, Run, Runs
from tests.pipelines.agent import LocalAgent
from tests.pipelines.engine import BaseImage, Engine
from tests.pipelines.programs import SEARCH_PATH
from tests.pipelines.registry import Registry

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
IMAGE = "sample-runtime"
LINE = "8.0-bookworm-slim"
PIPELINE_ID = 12


class World:
    """A checkout with one image, an agent at work on it, and the registry it pushes to."""

    def __init__(self, folder: Path, docker: Engine, ecr: Registry, base: BaseImage, repository: str) -> None:
        self.source, self.work = folder / "source", folder / "work"
        self.docker, self.ecr, self.base, self.repository = docker, ecr, base, repository
        self.environment = {"PATH": SEARCH_PATH, **docker.environment, **ecr.environment}
        shutil.copytree(ROOT / "pipelines", self.source / "pipelines")
        for part in ("images", "integration-tests"):
            shutil.copytree(ROOT / "tests/pipelines" / part, self.source / "pipelines" / part, dirs_exist_ok=True)
        catalog = yaml.safe_load((ROOT / "pipelines/catalog.yml").read_text())
        entry = {"base": f"{base.name}:{base.tag}", "repository": repository, "tag": LINE, "extra_tags": ["8.0"]}
        self.write("catalog.yml", yaml.safe_dump({"defaults": catalog["defaults"], "images": {IMAGE: entry}}))

    def write(self, path: str, text: str) -> None:
        """Change a file of the checkout, below `pipelines`."""
        (self.source / "pipelines" / path).write_text(text)

    def expect(self, **changes: Any) -> None:
        """Change what the image's test expects."""
        path = f"images/{IMAGE}/expectations.json"
        self.write(path, json.dumps({**json.loads((self.source / "pipelines" / path).read_text()), **changes}))

    def expect_little(self) -> None:
        """Leave out what takes time, for tests of something else."""
        self.expect(files=[], commands=[])

    def show_in(self, aws: LocalEcr) -> None:
        """Let the API know what was pushed to the registry: on AWS, the two are one."""
        for tag in self.ecr.versions(self.repository):
            aws.publish(self.repository, [tag], self.ecr.image(self.repository, tag))

    @asynccontextmanager
    async def azure(self, *, id_token: str = "", **environment: str) -> AsyncIterator["Azure"]:
        """An Azure DevOps with this one pipeline."""
        agent = LocalAgent(self.source, self.work, {**self.environment, **environment}, id_token=id_token)
        definitions = {PIPELINE_ID: Definition(name=IMAGE, project="platform-images")}
        runs = Runs(agent, definitions, state=None, now=lambda: datetime.now(UTC))
        azure = Azure(runs, agent)
        try:
            yield azure
        except BaseException:
            azure.show_logs()
            raise
        finally:
            await runs.stop()

    def parameters(self, digest: Digest, version: str, **changes: str) -> dict[str, str]:
        """What the bot queues a run with."""
        return {
            "image": IMAGE,
            "base": f"{self.base.name}@{digest}",
            "version_tag": f"{LINE}-{version}",
            "extra_tags": "8.0",
            "skip_update": "true",
            "request_id": "r7k2",
            "reason": "base moved",
            **changes,
        }


class Azure:
    """The runs, and what their agent kept."""

    def __init__(self, runs: Runs, agent: LocalAgent) -> None:
        self.runs, self.agent = runs, agent

    def queue(self, parameters: Mapping[str, str]) -> Run:
        return self.runs.queue(PIPELINE_ID, parameters, branch="refs/heads/main", version="9dd4b2f0")

    async def finish(self, parameters: Mapping[str, str]) -> Run:
        """Queue a run and wait for its end."""
        return await self.end_of(self.queue(parameters))

    def show_logs(self) -> None:
        """For the report of a test that failed."""
        for run in self.runs.all.values():
            for stage in run.stages:
                logger.error("log of %s of run %s:\n%s", stage, run.id, "\n".join(run.current(stage).lines))

    def result(self, run: Run) -> dict[str, Any]:
        """What the run published for the bot."""
        path = self.agent.artifact(run.id, "shipshape-result") / "result.json"
        published: dict[str, Any] = json.loads(path.read_text())
        return published

    async def end_of(self, run: Run) -> Run:
        await until(lambda: run.result is not None)
        return run


async def until(condition: Callable[[], object], *, within_s: float = 60) -> None:
    """Wait for a condition, which may block. Raises AssertionError after the deadline."""
    deadline = time.monotonic() + within_s
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.05)


def log_of(run: Run, stage: str) -> list[str]:
    """The log of a stage without the times."""
    return [line.split(" ", 1)[1] for line in run.current(stage).lines]


def last_line(run: Run, stage: str) -> str:
    """What the script of a failed stage said last."""
    lines = log_of(run, stage)
    return lines[lines.index("##[error]Bash exited with code '1'.") - 1].removeprefix("##[error]")


def outcome(run: Run) -> dict[str, str | None]:
    return {stage: run.current(stage).result for stage in run.stages}
