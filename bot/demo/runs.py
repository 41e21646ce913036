"""Pipeline runs of the local Azure DevOps: their stages, attempts and logs, and the agent that plays them.

A run survives a restart of the process: everything is written to one JSON file, and runs without a result are handed
to the agent again, from the first stage that has not succeeded.
"""

import asyncio
import contextlib
import logging
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from pydantic import TypeAdapter

logger = logging.getLogger(__name__)

STAGES = ("Build", "Test", "Push")
PARAMETERS = frozenset({"image", "base", "version_tag", "extra_tags", "skip_update", "request_id", "reason"})


class StageFailed(Exception):
    """Raised by an agent inside a stage: the stage fails, and the message becomes its error issue."""


class NotPossible(Exception):
    """The run is in a state that does not allow what was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A pipeline: its name, the project it belongs to, and the template parameters its YAML declares."""

    name: str
    project: str
    parameters: frozenset[str] = PARAMETERS


@dataclass(slots=True, kw_only=True)
class Approval:
    """What a stage waits for before it begins, because its environment asks for it."""

    id: str
    created: datetime
    status: Literal["pending", "approved", "rejected", "canceled"] = "pending"
    decided: datetime | None = None
    comment: str = ""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One try at a stage. `log_id` is its place in the run's list of logs, counted from 1; None before it began."""

    number: int = 1
    result: Literal["succeeded", "failed", "canceled", "skipped"] | None = None
    started: datetime | None = None
    finished: datetime | None = None
    log_id: int | None = None
    lines: list[str] = field(default_factory=list)
    error: str = ""
    approval: Approval | None = None

    @property
    def state(self) -> Literal["pending", "inProgress", "completed"]:
        if self.result:
            return "completed"
        return "inProgress" if self.started else "pending"


@dataclass(slots=True, kw_only=True)
class Run:
    """A pipeline run. `stages` holds every attempt at each stage, the newest last."""

    id: int
    pipeline_id: int
    name: str
    parameters: dict[str, str]
    branch: str
    version: str
    queued: datetime
    started: datetime | None = None
    finished: datetime | None = None
    result: Literal["succeeded", "failed", "canceled"] | None = None
    cancelling: bool = False
    stages: dict[str, list[Attempt]] = field(default_factory=lambda: {name: [Attempt()] for name in STAGES})

    @property
    def status(self) -> Literal["notStarted", "inProgress", "cancelling", "completed"]:
        if self.result:
            return "completed"
        if self.cancelling:
            return "cancelling"
        return "inProgress" if self.started else "notStarted"

    @property
    def attempts(self) -> list[Attempt]:
        """Every attempt that has a log, in the order of the logs."""
        begun = [attempt for attempts in self.stages.values() for attempt in attempts if attempt.log_id]
        return sorted(begun, key=lambda attempt: attempt.log_id or 0)

    @property
    def approvals(self) -> list[Approval]:
        """Every approval that the run asked for."""
        return [attempt.approval for attempts in self.stages.values() for attempt in attempts if attempt.approval]

    @property
    def first_stage(self) -> str | None:
        """The first stage that has not succeeded; None when all have."""
        return next((name for name in STAGES if self.current(name).result != "succeeded"), None)

    def current(self, stage: str) -> Attempt:
        """The newest attempt at a stage. Raises KeyError for a stage the pipeline does not have."""
        return self.stages[stage][-1]

    def begin(self, stage: str, now: datetime) -> Attempt:
        """Raises StageFailed for a stage that was cancelled before its turn."""
        attempt = self.current(stage)
        if attempt.result:
            raise StageFailed(f"{stage} is already {attempt.result}")
        self.started = self.started or now
        attempt.log_id = attempt.log_id or len(self.attempts) + 1
        attempt.started, attempt.lines = now, []
        return attempt

    def finish(self, now: datetime, *, failed: bool) -> None:
        """Skip what was not reached and set the result; `failed` when the agent raised instead of returning."""
        current = [attempts[-1] for attempts in self.stages.values()]
        for attempt in current:
            attempt.result = attempt.result or ("failed" if attempt.started else "skipped")
        results = {attempt.result for attempt in current}
        if results == {"succeeded"}:
            self.result = "succeeded"
        elif self.cancelling or "canceled" in results:
            self.result = "canceled"
        else:
            self.result = "failed" if failed else "succeeded"
        self.finished = now

    def retry_from(self, stage: str) -> None:
        """Open a new attempt at a stage and at those after it."""
        for name in STAGES[STAGES.index(stage) :]:
            self.stages[name].append(Attempt(number=len(self.stages[name]) + 1))
        self.result, self.finished, self.cancelling = None, None, False


class StageLog:
    """The log of a stage under way."""

    def __init__(self, attempt: Attempt, now: Callable[[], datetime]) -> None:
        self._attempt = attempt
        self._now = now

    async def log(self, text: str) -> None:
        """Append lines, each with the time in front, as an Azure agent writes them."""
        time = f"{self._now():%Y-%m-%dT%H:%M:%S.%f}0Z"
        self._attempt.lines.extend(f"{time} {line}" for line in text.splitlines())


class AgentRun:
    """What an agent gets to play: the run's facts, and `stage` to go through its stages in order."""

    def __init__(
        self,
        run: Run,
        definition: Definition,
        *,
        now: Callable[[], datetime],
        save: Callable[[], None],
        admit: Callable[[str], Awaitable[None]],
    ) -> None:
        self.id = run.id
        self.name = run.name
        self.parameters = dict(run.parameters)
        self.definition = definition
        assert run.first_stage, "there is nothing left to play"
        self.first_stage = run.first_stage
        self.attempt = run.current(self.first_stage).number
        self.cancelled = asyncio.Event()
        self._run, self._now, self._save, self._admit = run, now, save, admit

    @contextlib.asynccontextmanager
    async def stage(self, name: str) -> AsyncIterator[StageLog]:
        """A stage begins here and ends with the block: succeeded, failed by an exception, or cancelled with the run."""
        await self._admit(name)
        attempt = self._run.begin(name, self._now())
        self._save()
        try:
            yield StageLog(attempt, self._now)
            attempt.result = "succeeded"
        except asyncio.CancelledError:
            # Nobody asked to cancel: the process is stopping, and the stage is run again after the restart.
            attempt.result = "canceled" if self.cancelled.is_set() else None
            raise
        except Exception as error:
            attempt.result, attempt.error = "failed", str(error) or type(error).__name__
            raise
        finally:
            attempt.finished = self._now() if attempt.result else None
            self._save()


class Agent(Protocol):
    """Plays the stages of runs."""

    async def run(self, run: AgentRun) -> None:
        """Play the stages from `run.first_stage` on, and let StageFailed pass.

        The task is cancelled when the run is, with `run.cancelled` set before.
        """


class Runs:
    """All runs, and the agent at work on the unfinished ones.

    `on_change` is called with each run that changed. `guarded` names the stages whose environment asks for an approval.
    """

    def __init__(
        self, agent: Agent, definitions: Mapping[int, Definition], *, state: Path | None, now: Callable[[], datetime]
    ) -> None:
        self.all: dict[int, Run] = {}
        self.on_change: list[Callable[[Run], None]] = []
        self.guarded: set[str] = set()
        self._decided = asyncio.Event()
        self._agent, self._definitions, self._state, self._now = agent, definitions, state, now
        self._active: dict[int, tuple[AgentRun, asyncio.Task[None]]] = {}

    def start(self) -> None:
        """Read the state file and hand unfinished runs to the agent again."""
        if self._state and self._state.exists():
            self.all = {run.id: run for run in _STATE.validate_json(self._state.read_bytes())}
        for run in [run for run in self.all.values() if run.result is None]:
            if run.cancelling or run.first_stage is None:
                self._finish(run)
            else:
                self._play(run)

    async def stop(self) -> None:
        """Stop the agent; unfinished runs stay unfinished."""
        tasks = [task for _, task in self._active.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def queue(self, pipeline_id: int, parameters: Mapping[str, str], *, branch: str, version: str) -> Run:
        now = self._now()
        run = Run(
            id=max(self.all, default=0) + 1,
            pipeline_id=pipeline_id,
            name=self._name(pipeline_id, parameters.get("request_id", ""), now),
            parameters=dict(parameters),
            branch=branch,
            version=version,
            queued=now,
        )
        self.all[run.id] = run
        self._play(run)
        return run

    def cancel(self, run: Run) -> None:
        """Raises NotPossible when the run has ended."""
        if run.result:
            raise NotPossible(f"Run {run.name} has already completed.")
        run.cancelling = True
        handle, task = self._active[run.id]
        handle.cancelled.set()
        task.cancel()
        self._changed(run)

    def cancel_stage(self, run: Run, stage: str) -> None:
        """Cancel a stage under way, and the run with it, or one whose turn has not come.

        Raises NotPossible when the stage has ended.
        """
        attempt = run.current(stage)
        if attempt.result:
            raise NotPossible(f"Stage {stage} of run {run.name} has already completed.")
        if attempt.started:
            self.cancel(run)
        else:
            attempt.result = "canceled"
            self._changed(run)

    def decide(self, run: Run, approval: Approval, status: Literal["approved", "rejected"], comment: str) -> None:
        """Answer what a stage waits for. Raises NotPossible when that was done before."""
        if approval.status != "pending":
            raise NotPossible(f"The approval {approval.id} is already {approval.status}.")
        approval.status, approval.comment, approval.decided = status, comment, self._now()
        self._changed(run)
        self._decided.set()

    async def _admit(self, run: Run, stage: str) -> None:
        """Wait for the approval of a guarded stage. Raises StageFailed when it is rejected."""
        attempt = run.current(stage)
        if stage in self.guarded and attempt.approval is None:
            attempt.approval = Approval(id=str(uuid.uuid4()), created=self._now())
            self._changed(run)
        while attempt.approval and attempt.approval.status == "pending":
            self._decided.clear()
            await self._decided.wait()
        if attempt.approval and attempt.approval.status == "rejected":
            raise StageFailed(f"The approval of {stage} was rejected")

    def retry_stage(self, run: Run, stage: str, *, force: bool) -> None:
        """Play a failed or cancelled stage and those after it again; with `force` also one that succeeded.

        Raises NotPossible for any other stage, and while the run is under way.
        """
        again = ("failed", "canceled", "succeeded") if force else ("failed", "canceled")
        if run.result is None or run.current(stage).result not in again:
            raise NotPossible(f"Stage {stage} of run {run.name} cannot be retried.")
        run.retry_from(stage)
        self._play(run)

    def retry(self, run: Run) -> None:
        """Play a failed or cancelled run again from its first stage that did not succeed. Raises NotPossible."""
        if run.result not in ("failed", "canceled") or run.first_stage is None:
            raise NotPossible(f"Run {run.name} cannot be retried.")
        run.retry_from(run.first_stage)
        self._play(run)

    def _name(self, pipeline_id: int, request_id: str, now: datetime) -> str:
        """The run name our pipelines compute: `$(Date:yyyyMMdd)$(Rev:.r)-request_id`."""
        today = [run for run in self.all.values() if run.pipeline_id == pipeline_id and run.queued.date() == now.date()]
        return "-".join(filter(None, (f"{now:%Y%m%d}.{len(today) + 1}", request_id)))

    def _play(self, run: Run) -> None:
        handle = AgentRun(
            run,
            self._definitions[run.pipeline_id],
            now=self._now,
            save=lambda: self._changed(run),
            admit=lambda stage: self._admit(run, stage),
        )
        task = asyncio.create_task(self._agent.run(handle), name=f"run {run.name}")
        self._active[run.id] = handle, task
        # A callback, since a task that is cancelled before it began never runs a line of its own.
        task.add_done_callback(lambda ended: self._ended(run, ended))
        self._changed(run)

    def _ended(self, run: Run, task: asyncio.Task[None]) -> None:
        del self._active[run.id]
        if task.cancelled() and not run.cancelling:
            return  # the process stops; the run is played on after the restart
        error = None if task.cancelled() else task.exception()
        if error and not isinstance(error, StageFailed):
            logger.error("agent failed", exc_info=error, extra={"run_id": run.id})
        self._finish(run, failed=error is not None)

    def _finish(self, run: Run, *, failed: bool = False) -> None:
        for approval in run.approvals:
            approval.status = "canceled" if approval.status == "pending" else approval.status
        run.finish(self._now(), failed=failed)
        self._changed(run)

    def _changed(self, run: Run) -> None:
        self._save()
        for callback in self.on_change:
            callback(run)

    def _save(self) -> None:
        if self._state:
            # Written before anything is answered, so that no run which somebody heard of is lost.
            part = self._state.with_suffix(".part")
            part.write_bytes(_STATE.dump_json(list(self.all.values()), indent=1))
            os.replace(part, self._state)


_STATE = TypeAdapter(list[Run])
