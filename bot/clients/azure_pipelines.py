"""Azure Pipelines through the azure-devops client library.

Queueing is never repeated in here: a POST whose answer was lost may have queued a run.
https://learn.microsoft.com/rest/api/azure/devops/pipelines/ and .../build/
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from bot.clients.azure_approvals import approvals_client
from bot.clients.azure_devops import Organization
from bot.core.images import PipelineReference
from bot.core.runs import Run, RunRequest, RunState, Stage, StageApproval, StageApprovalState, StageState
from bot.errors import NotFound

RECENT = 50  # runs of a pipeline among which a lost one is looked for
BATCH = 100  # run ids in one call, for the length of the URL

Result = TypeVar("Result")


class AzurePipelines:
    """Implements the port `Pipelines` for one organization, with a token as `Organization` takes it."""

    def __init__(self, url: str, token: str) -> None:
        self._organization = Organization(url, token)
        from azure.devops.v7_1.build import BuildClient
        from azure.devops.v7_1.pipelines import PipelinesClient, models

        self._models = models
        self._clients = self._organization.client(PipelinesClient), self._organization.client(BuildClient)
        self._approvals = self._organization.client(approvals_client())

    async def close(self) -> None:
        await self._organization.close()

    async def queue(self, request: RunRequest) -> Run:
        pipeline = request.pipeline
        parameters = self._models.RunPipelineParameters(template_parameters=request.parameters)
        run = await self._call(lambda p, _: p.run_pipeline(parameters, pipeline.project, pipeline.id))
        return Run(
            id=run.id,
            number=run.name or str(run.id),
            url=_web_link(run),
            project=pipeline.project,
            state=RunState.WAITING,
            parameters=request.parameters,
            queued_at=_utc(run.created_date),
        )

    async def find(self, pipeline: PipelineReference, request_id: str) -> Run | None:
        recent = await self._builds(
            pipeline.project, definitions=[pipeline.id], top=RECENT, query_order="queueTimeDescending"
        )
        mine = (run for run in recent if run.parameters.get("request_id") == request_id or request_id in run.number)
        return next(mine, None)

    async def active(self, pipeline: PipelineReference) -> list[Run]:
        return await self._builds(
            pipeline.project, definitions=[pipeline.id], status_filter="inProgress,notStarted,postponed,cancelling"
        )

    async def look(self, project: str, run_ids: Sequence[int]) -> list[Run]:
        found: list[Run] = []
        for start in range(0, len(run_ids), BATCH):
            found += await self._builds(project, build_ids=list(run_ids[start : start + BATCH]))
        return found

    async def stages(self, project: str, run_id: int) -> list[Stage]:
        timeline = await self._call(lambda _, b: b.get_build_timeline(project, run_id))
        return _stages(timeline.records or []) if timeline else []

    async def approvals(self, project: str, approval_ids: Sequence[str]) -> list[StageApproval]:
        found = await self._organization.call(lambda: self._approvals.query(project, approval_ids))
        return [_approval(each) for each in found or []]

    async def answer_approval(self, project: str, approval_id: str, *, approve: bool, comment: str) -> StageApproval:
        status = "approved" if approve else "rejected"
        found = await self._organization.call(lambda: self._approvals.update(project, approval_id, status, comment))
        return _approval(found[0])

    async def log_tail(self, project: str, run_id: int, log_id: int, lines: int) -> list[str]:
        logs = await self._call(lambda _, b: b.get_build_logs(project, run_id))
        count = next((log.line_count or 0 for log in logs or [] if log.id == log_id), None)
        if count is None:
            raise NotFound(f"run {run_id} has no log {log_id}")
        start = max(0, count - 10 * lines)
        text = await self._call(
            lambda _, b: b.get_build_log_lines(project, run_id, log_id, start_line=start, end_line=count)
        )
        return useful_lines(text or [], lines)

    async def cancel(self, project: str, run_id: int) -> None:
        from azure.devops.v7_1.build.models import Build

        await self._call(lambda _, b: b.update_build(Build(status="cancelling"), project, run_id))

    async def retry_stage(self, project: str, run_id: int, ref_name: str) -> None:
        from azure.devops.v7_1.build.models import UpdateStageParameters

        change = UpdateStageParameters(state="retry", force_retry_all_jobs=False)
        await self._call(lambda _, b: b.update_stage(change, run_id, ref_name, project))

    async def _builds(self, project: str, **filters: Any) -> list[Run]:
        builds = await self._call(lambda _, b: b.get_builds(project, **filters))
        return [_run(build, project) for build in builds]

    async def _call(self, work: Callable[[Any, Any], Result]) -> Result:
        """Run a call of the pipelines client and the build client. Raises PeerError."""
        return await self._organization.call(lambda: work(*self._clients))


def _run(build: Any, project: str) -> Run:
    return Run(
        id=build.id,
        number=build.build_number or str(build.id),
        url=_web_link(build),
        project=project,
        state=_run_state(build.status, build.result),
        parameters=dict(build.template_parameters or {}),
        queued_at=_utc(build.queue_time),
        started_at=_utc(build.start_time),
        finished_at=_utc(build.finish_time),
    )


def _run_state(status: str | None, result: str | None) -> RunState:
    if status in ("inProgress", "cancelling"):
        return RunState.RUNNING
    if status != "completed":
        return RunState.WAITING
    # Partly succeeded is a success with warnings; what it pushed is verified like anything else.
    ends = {"succeeded": RunState.SUCCEEDED, "partiallySucceeded": RunState.SUCCEEDED, "canceled": RunState.CANCELLED}
    return ends.get(result or "", RunState.FAILED)


def _web_link(thing: Any) -> str:
    links = getattr(thing._links, "additional_properties", None) or {}
    web = links.get("web")
    return str(web.get("href", "")) if isinstance(web, dict) else ""


def _utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment else None


STAGE_RESULTS = {
    "succeeded": StageState.SUCCEEDED,
    "succeededWithIssues": StageState.SUCCEEDED,
    "failed": StageState.FAILED,
    "canceled": StageState.CANCELLED,
    "abandoned": StageState.CANCELLED,
    "skipped": StageState.SKIPPED,
}


def _stages(records: Sequence[Any]) -> list[Stage]:
    """The stages of a timeline in order. Names are the pipeline's own; none is expected to be there."""
    stages = sorted((r for r in records if r.type == "Stage"), key=lambda r: r.order or 0)
    return [_stage(record, _below(record, records)) for record in stages]


def _stage(record: Any, below: Sequence[Any]) -> Stage:
    state = {"inProgress": StageState.RUNNING, "completed": STAGE_RESULTS.get(record.result, StageState.FAILED)}
    failed = [r for r in (*below, record) if r.result == "failed"]
    tasks = [r for r in failed if r.type == "Task"]
    errors = [
        issue.message for r in tasks or failed for issue in r.issues or [] if issue.type == "error" and issue.message
    ]
    return Stage(
        name=record.name,
        state=state.get(record.state, StageState.PENDING),
        ref_name=record.identifier or record.name,
        started_at=_utc(record.start_time),
        finished_at=_utc(record.finish_time),
        attempt=record.attempt or 1,
        failed_step=tasks[0].name or "" if tasks else "",
        log_id=next((r.log.id for r in tasks or failed if r.log), None),
        errors=tuple(useful_lines(errors, len(errors))),
        approval_ids=tuple(r.id for r in below if r.type == "Checkpoint.Approval"),
    )


APPROVAL_STATES = {
    **dict.fromkeys(("pending", "uninitiated", "undefined", "deferred"), StageApprovalState.PENDING),
    "approved": StageApprovalState.APPROVED,
    "rejected": StageApprovalState.REJECTED,
}


def _approval(found: Mapping[str, Any]) -> StageApproval:
    steps = found.get("steps") or []
    decisive: Mapping[str, Any] = next(
        (step for step in steps if step.get("actualApprover") and step["status"] == found["status"]), {}
    )
    names = [(step.get("assignedApprover") or {}).get("displayName") for step in steps]
    return StageApproval(
        id=found["id"],
        state=APPROVAL_STATES.get(found["status"], StageApprovalState.ENDED),
        instructions=found.get("instructions") or "",
        approvers=tuple(name for name in names if name),
        decided_by=(decisive.get("actualApprover") or {}).get("displayName") or "",
        comment=decisive.get("comment") or "",
    )


def _below(stage: Any, records: Sequence[Any]) -> list[Any]:
    """The phases, jobs and tasks of a stage, in the order they ran."""
    children: dict[str | None, list[Any]] = {}
    for record in records:
        children.setdefault(record.parent_id, []).append(record)
    found, todo = [], [stage.id]
    while todo:
        level = children.get(todo.pop(), [])
        found += level
        todo += [record.id for record in level]
    return sorted(found, key=lambda r: (r.start_time is None, r.start_time, r.order or 0))


LONGEST_LINE, SHOWN = 4000, 300  # characters that are read, and that are left
TIME_STAMP = re.compile(r"^\ufeff?\d{4}-\d\d-\d\dT[\d:.]+Z ?")
ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-_])")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Azure masks what it knows as secret; these are the ones that reach a log all the same.
SECRETS = (
    re.compile(r"()\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    re.compile(r"()\b(?:[0-9A-Za-z]{76}AZDO[0-9A-Za-z]{4}|[a-z2-7]{52})\b"),  # of Azure DevOps, new and old
    re.compile(r"(?i)(\bbearer |\bauthorization: basic )[\w.~+/=-]{8,}"),
    re.compile(r"(://)[^/\s:@]*:[^/\s@]+(?=@)"),
    re.compile(
        r"""(?i)((?:passw(?:or)?d|secret|token|[-_]key|apikey|accountkey)["']?\s*[=:]\s*|--password\s+)(?:"[^"]*"|'[^']*'|\S+)"""
    ),
    re.compile(r"()\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"),
)
# The frame that the agent puts around what a step prints.
NOISE = re.compile(r"##\[(?:section|group|endgroup|debug|command)\]|^=+$|^(?:Task|Description|Version|Author|Help) +:")


def useful_lines(text: Sequence[str], count: int) -> list[str]:
    """The last lines up to the last error, without time stamps, escape codes, control characters and secrets."""
    lines = [_clean(line) for part in text for line in part.splitlines()]
    last_error = max((i for i, line in enumerate(lines) if "##[error]" in line), default=len(lines) - 1)
    kept = [line.replace("##[error]", "") for line in lines[: last_error + 1] if line and not NOISE.search(line)]
    return kept[-count:] if count else []


def _clean(line: str) -> str:
    line = CONTROL.sub("", ESCAPE.sub("", TIME_STAMP.sub("", line[:LONGEST_LINE]))).rstrip()
    for secret in SECRETS:
        line = secret.sub(r"\1***", line)
    return line[:SHOWN]
