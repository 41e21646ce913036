"""Runs of Azure Pipelines: their stages, what they wait for, and what they are queued with."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from bot.core.images import PipelineReference
from bot.core.people import Vote


class StageState(StrEnum):
    """How far a stage of the pipeline is, in the words people see."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of a run, under the name that people see; `ref_name` is what Azure knows it by.

    `approval_ids` are of what it waits for, or has waited for, before it began. `failed_step` and `log_id` are of the
    step that broke it; empty and None when there is none.
    """

    name: str
    state: StageState
    ref_name: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None
    attempt: int = 1
    failed_step: str = ""
    log_id: int | None = None
    errors: tuple[str, ...] = ()
    approval_ids: tuple[str, ...] = ()


class StageApprovalState(StrEnum):
    """What became of an approval; `ended` is one that nobody needs any more."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageApproval:
    """What Azure Pipelines itself waits for before a stage, because an environment asks for it.

    `votes` are given in Teams before Azure is answered; `decided_by` and `comment` are what Azure tells of the answer.
    https://learn.microsoft.com/azure/devops/pipelines/process/approvals
    """

    id: str
    stage: str = ""
    state: StageApprovalState = StageApprovalState.PENDING
    instructions: str = ""
    approvers: tuple[str, ...] = ()
    votes: tuple[Vote, ...] = ()
    decided_by: str = ""
    comment: str = ""


class RunState(StrEnum):
    """A run of Azure Pipelines: build status and result in one word."""

    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run as Azure DevOps tells it. `number` is its name; `parameters` are its template parameters."""

    id: int
    number: str
    url: str
    project: str
    state: RunState
    parameters: dict[str, str]
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """What a run is queued with: the template parameters, all strings."""

    pipeline: PipelineReference
    parameters: dict[str, str]

    @property
    def request_id(self) -> str:
        return self.parameters["request_id"]
