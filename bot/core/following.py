"""Following runs: from queued to what Azure Pipelines made of them."""

import logging
from collections.abc import AsyncIterator
from dataclasses import replace

from bot.core import stage_approvals
from bot.core.audit import system_entry
from bot.core.hints import Hints
from bot.core.ports import Clock, Pipelines
from bot.core.progress import Progress
from bot.core.rebuilds import Rebuild, State
from bot.core.runs import Run, RunState, Stage
from bot.errors import PeerError, PeerRefused

logger = logging.getLogger(__name__)

LOG_LINES = 12


class Following:
    """Looks at runs, and keeps their stages and approvals on the rebuilds."""

    def __init__(self, pipelines: Pipelines, hints: Hints, progress: Progress, clock: Clock) -> None:
        self._pipelines = pipelines
        self._hints = hints
        self._progress = progress
        self._clock = clock

    async def look(self, rebuilds: list[Rebuild]) -> AsyncIterator[tuple[Rebuild, Run | None]]:
        """Each rebuild with its run, None when that is gone; one list call per project."""
        projects: dict[str, dict[int, Rebuild]] = {}
        for rebuild in rebuilds:
            if rebuild.run_id is not None:
                projects.setdefault(rebuild.run_project, {})[rebuild.run_id] = rebuild
        for project, by_run in projects.items():
            try:
                runs = {run.id: run for run in await self._pipelines.look(project, list(by_run))}
            except PeerError as error:
                logger.warning("runs of %s cannot be read: %s", project, error)
                self._hints.missed()
                continue
            for run_id, rebuild in by_run.items():
                yield rebuild, runs.get(run_id)

    async def step(self, rebuild: Rebuild, run: Run | None) -> None:
        """Note how the run stands, by its timeline once it has begun. Raises Conflict, PeerError."""
        if run is None:
            await self._progress.end(
                rebuild, State.FAILED, f"run {rebuild.run_number} no longer exists in Azure DevOps"
            )
            return
        stages = tuple(await self._pipelines.stages(run.project, run.id))
        rebuild = await self._note_approvals(rebuild, stages)
        if run.state is RunState.WAITING:
            return
        if run.state is not RunState.RUNNING and self._about_to_begin_again(rebuild, stages):
            return
        seen = replace(rebuild, stages=stages, retry_until=None)
        if run.state is RunState.RUNNING:
            if rebuild.state is State.QUEUED:
                await self._progress.save(rebuild, seen.move(State.RUNNING, self._clock.now()), "start")
            elif seen != rebuild:
                await self._progress.note(seen)
            return
        await self._finished(replace(seen, run_finished_at=run.finished_at or self._clock.now()), run)

    async def _note_approvals(self, rebuild: Rebuild, stages: tuple[Stage, ...]) -> Rebuild:
        """Save what Azure waits for before a stage, and what was decided there."""
        approvals = await stage_approvals.look(self._pipelines, rebuild, stages)
        if approvals == rebuild.stage_approvals:
            return rebuild
        decided = stage_approvals.decisions(rebuild.stage_approvals, approvals)
        noted = replace(rebuild, stage_approvals=approvals)
        comment = "; ".join(map(stage_approvals.told, decided))
        entry = replace(system_entry(rebuild, noted, "decided in Azure", self._clock), comment=comment)
        return await self._progress.note(noted, entry if decided else None)

    def _about_to_begin_again(self, rebuild: Rebuild, stages: tuple[Stage, ...]) -> bool:
        """Whether this is still the end of the attempt before, which somebody asked Azure to retry a moment ago."""
        if rebuild.retry_until is None or rebuild.retry_until <= self._clock.now():
            return False
        return [stage.attempt for stage in stages] == [stage.attempt for stage in rebuild.stages]

    async def _finished(self, rebuild: Rebuild, run: Run) -> None:
        if run.state is RunState.SUCCEEDED:
            verifying = rebuild.move(State.VERIFYING, self._clock.now())
            await self._progress.save(rebuild, verifying, "finish")
        elif run.state is RunState.CANCELLED:
            await self._progress.end(rebuild, State.CANCELLED, _why_cancelled(rebuild))
        else:
            failed = rebuild.failed_stage
            tail = await self._log_tail(run, failed)
            reason = f"stage {failed.name} failed" if failed else "the run failed"
            reason = stage_approvals.rejection(rebuild) or reason
            await self._progress.end(replace(rebuild, log_tail=tail), State.FAILED, reason)

    async def _log_tail(self, run: Run, stage: Stage | None) -> tuple[str, ...]:
        """The end of the failed stage's log; its error lines when the log cannot be had."""
        if stage is None:
            return ()
        if stage.log_id is None:
            return stage.errors
        try:
            return tuple(await self._pipelines.log_tail(run.project, run.id, stage.log_id, LOG_LINES))
        except PeerRefused:
            return stage.errors


def _why_cancelled(rebuild: Rebuild) -> str:
    return rebuild.ended_reason or stage_approvals.rejection(rebuild) or "the run was cancelled in Azure DevOps"
