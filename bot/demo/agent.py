"""The build agent of the local world: it plays the three stages, and only the push does something real."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

from bot.demo.runs import STAGES, AgentRun, StageFailed, StageLog

# https://learn.microsoft.com/azure/devops/pipelines/scripts/logging-commands#formatting-commands
_START = """\
##[section]Starting: {stage} {image}
==============================================================================
Task         : Bash
Description  : Run a Bash script on macOS, Linux, or Windows
Version      : 3.250.1
=============================================================================="""
_END = "##[section]Finishing: {stage} {image}"
_WORK = {
    "Build": (
        "##[command]docker build --pull --build-arg BASE={base} --tag {image}:candidate .",
        "Step 1/6 : FROM {base}",
        "Step 4/6 : RUN apt-get update && apt-get upgrade --yes",
        "Step 6/6 : USER 1654",
        "Built {image}:candidate for {version_tag}",
        "##[command]docker push {image}:candidate",
    ),
    "Test": (
        "##[command]docker pull {image}:candidate",
        "##[command]docker build --build-arg BASE={image}:candidate --tag integration pipelines/tests",
        "  integration -> /app/publish/",
        "##[command]docker run --detach --publish 8080:8080 integration",
    ),
    "Push": (
        "##[command]promote {image}:candidate to {version_tag}",
        "##[command]promote {image}:candidate to {extra_tags}",
    ),
}
_PASSED = "GET http://127.0.0.1:8080/ answered 200"
_EXIT = "Bash exited with code '1'."


class ScriptedAgent:
    """Plays every run by the same script.

    `durations` is how many seconds each stage takes. `push` puts the image into the registry, within the Push stage
    and again when that stage is retried. `fails` answers the stage of a run that shall fail and the last lines of its
    log, or None.
    """

    def __init__(
        self,
        durations: Mapping[str, float],
        push: Callable[[AgentRun], Awaitable[None]],
        fails: Callable[[AgentRun], tuple[str, Iterable[str]] | None] = lambda run: None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._durations, self._push, self._fails, self._sleep = durations, push, fails, sleep

    async def run(self, run: AgentRun) -> None:
        for name in STAGES[STAGES.index(run.first_stage) :]:
            async with run.stage(name) as stage:
                await self._play(run, name, stage)

    async def _play(self, run: AgentRun, name: str, stage: StageLog) -> None:
        words = {key: run.parameters.get(key, "") for key in ("image", "base", "version_tag", "extra_tags")}
        await stage.log(_START.format(stage=name, **words))
        for line in _WORK[name]:
            await self._sleep(self._durations[name] / len(_WORK[name]))
            await stage.log(line.format(**words))
        failure = self._fails(run)
        if failure and failure[0] == name:
            await _fail(stage, failure[1])
        if name == "Test":
            await stage.log(_PASSED)
        if name == "Push":
            await self._push(run)
        await stage.log(_END.format(stage=name, **words))


async def _fail(stage: StageLog, lines: Iterable[str]) -> None:
    """In red, as test runners print it: whoever shows the log has to take the escape codes out."""
    for line in lines:
        await stage.log(f"\x1b[31;1m{line}\x1b[0m")
    await stage.log(f"##[error]{_EXIT}")
    raise StageFailed(_EXIT)
