"""The JSON documents of the local Azure DevOps, made from its runs.

Shapes: https://github.com/MicrosoftDocs/vsts-rest-api-specs, pipelines and build 7.1. What has no value is left out.
"""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bot.demo.runs import STAGES, Approval, Attempt, Definition, Run

Json = dict[str, Any]

_OF_PIPELINE = "{project}/_apis/{area}/{pipelineId}/{resource}"
_OF_BUILD = "{project}/_apis/{area}/builds/{buildId}/{resource}"
_OF_DEFINITION = "{project}/_apis/{area}/{resource}/{definitionId}"
_APPROVALS = "{project}/_apis/pipelines/{resource}/{approvalId}"
# What the client library looks up before it builds an address: location id, area, resource, route, resource version.
_LOCATIONS = (
    ("e81700f7-3be2-46de-8624-2eb35882fcaa", "Location", "ResourceAreas", "_apis/{resource}/{areaId}", 1),
    ("28e1305e-2afe-47bf-abaf-cbb0e6a91988", "pipelines", "pipelines", "{project}/_apis/{resource}/{pipelineId}", 1),
    ("7859261e-d2e9-4a68-b820-a5d84cc5bb3d", "pipelines", "runs", _OF_PIPELINE + "/{runId}", 1),
    ("53df2d18-29ea-46a9-bee0-933540f80abf", "pipelines", "preview", _OF_PIPELINE, 1),
    ("0cd358e1-9217-4d94-8269-1c1ee6f93dcf", "build", "Builds", "{project}/_apis/{area}/{resource}/{buildId}", 7),
    ("b8aac6c9-744b-46e1-88fc-3550969f9313", "build", "stages", _OF_BUILD + "/{stageRefName}", 1),
    ("8baac422-4c6e-4de5-8532-db96d92acffa", "build", "Timeline", _OF_BUILD + "/{timelineId}", 2),
    ("35a80daf-7f30-45fc-86e8-6b813d9c90df", "build", "Logs", _OF_BUILD + "/{logId}", 2),
    ("dbeaf647-6167-421a-bda9-c9327b25e2e6", "build", "Definitions", _OF_DEFINITION, 7),
    ("fc50d02a-849f-41fb-8af1-0a5216103269", "hooks", "subscriptions", "_apis/{area}/{resource}/{subscriptionId}", 1),
    ("37794717-f36f-4d78-b2bf-4dc30d0cfbcd", "approval", "approvals", _APPROVALS, 1),
    ("1db06c96-014e-44e1-ac91-90b2d4b3e984", "build", "artifacts", _OF_BUILD, 5),
)
_STEPS = {
    "Build": "Build and push the candidate",
    "Test": "Run the integration application",
    "Push": "Promote the candidate",
}
WHO = {"displayName": "Shipshape", "id": "0f8fad5b-d9cb-469f-a165-70867728950e", "uniqueName": "shipshape@contoso.com"}


INSTRUCTIONS = "Is the release announced?"


def collection(values: list[Any]) -> Json:
    return {"count": len(values), "value": values}


def locations() -> Json:
    """The answer to OPTIONS `_apis`."""
    names = ("id", "area", "resourceName", "routeTemplate", "resourceVersion")
    versions = {"minVersion": "1.0", "maxVersion": "7.2", "releasedVersion": "7.1"}
    return collection([dict(zip(names, location, strict=True)) | versions for location in _LOCATIONS])


def error(message: str, type_key: str, *, namespace: str = "Microsoft.VisualStudio.Services.Common") -> Json:
    """A WrappedException."""
    return {
        "$id": "1",
        "innerException": None,
        "message": message,
        "typeName": f"{namespace}.{type_key}, {namespace}",
        "typeKey": type_key,
        "errorCode": 0,
        "eventId": 3000,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """`url` is the organization's address without a slash at the end."""

    url: str
    definitions: Mapping[int, Definition]

    def pipeline(self, pipeline_id: int) -> Json:
        definition = self.definitions[pipeline_id]
        url = f"{self.url}/{project_id(definition.project)}/_apis/pipelines/{pipeline_id}?revision=1"
        return {
            "_links": {"self": {"href": url}},
            "id": pipeline_id,
            "name": definition.name,
            "folder": "\\",
            "revision": 1,
            "url": url,
        }

    def definition(self, pipeline_id: int) -> Json:
        definition = self.definitions[pipeline_id]
        project = _project(definition)
        return {"id": pipeline_id, "name": definition.name, "path": "\\", "type": "build", "project": project}

    def run(self, run: Run) -> Json:
        pipeline = self.pipeline(run.pipeline_id)
        url = f"{self._project(run)}/_apis/pipelines/{run.pipeline_id}/runs/{run.id}"
        return _without_none(
            {
                "_links": {"self": {"href": url}, "web": {"href": self._web(run)}},
                "id": run.id,
                "name": run.name,
                "url": url,
                "pipeline": {key: value for key, value in pipeline.items() if key != "_links"},
                "state": {"completed": "completed", "cancelling": "canceling"}.get(run.status, "inProgress"),
                "result": run.result,
                "createdDate": time_of(run.queued),
                "finishedDate": time_of(run.finished),
                "templateParameters": run.parameters,
                "resources": {"repositories": {"self": {"refName": run.branch, "version": run.version}}},
            }
        )

    def build(self, run: Run) -> Json:
        url = self._build(run)
        definition = self.definitions[run.pipeline_id]
        project = _project(definition)
        return _without_none(
            {
                "_links": {
                    "self": {"href": url},
                    "web": {"href": self._web(run)},
                    "timeline": {"href": f"{url}/Timeline"},
                },
                "id": run.id,
                "buildNumber": run.name,
                "status": run.status,
                "result": run.result,
                "queueTime": time_of(run.queued),
                "startTime": time_of(run.started),
                "finishTime": time_of(run.finished),
                "url": url,
                "uri": f"vstfs:///Build/Build/{run.id}",
                "definition": {"id": run.pipeline_id, "name": definition.name, "type": "build", "project": project},
                "project": project,
                "sourceBranch": run.branch,
                "sourceVersion": run.version,
                "reason": "manual",
                "priority": "normal",
                "requestedBy": WHO,
                "requestedFor": WHO,
                "templateParameters": run.parameters,
                "logs": {"id": 0, "type": "Container", "url": f"{url}/logs"},
                "tags": [],
            }
        )

    def timeline(self, run: Run) -> Json:
        """The newest attempt at every stage."""
        records = [
            record
            for order, stage in enumerate(STAGES, start=1)
            for record in self._records(run, stage, run.current(stage), order)
        ]
        return self._timeline(run, timeline_id(run), records)

    def attempt(self, run: Run, wanted: str) -> Json | None:
        """The timeline of an earlier attempt at a stage, by its id in `previousAttempts`; None when there is none."""
        for order, stage in enumerate(STAGES, start=1):
            for attempt in run.stages[stage][:-1]:
                if wanted == timeline_id(run, stage, attempt):
                    records = list(self._records(run, stage, attempt, order))
                    return self._timeline(run, wanted, records)
        return None

    def approval(self, run: Run, approval: Approval, *, steps: bool) -> Json:
        step: Json = {
            "assignedApprover": WHO,
            "actualApprover": WHO if approval.decided else None,
            "status": approval.status,
            "comment": approval.comment or None,
            "order": 1,
            "initiatedOn": time_of(approval.created),
            "lastModifiedOn": time_of(approval.decided or approval.created),
            "history": [],
        }
        return {
            "id": approval.id,
            "steps": [_without_none(step)] if steps else [],
            "status": approval.status,
            "createdOn": time_of(approval.created),
            "lastModifiedOn": time_of(approval.decided or approval.created),
            "executionOrder": "anyOrder",
            "minRequiredApprovers": 1,
            "instructions": INSTRUCTIONS,
            "blockedApprovers": [],
            "_links": {"self": {"href": f"{self._project(run)}/_apis/pipelines/approvals/{approval.id}"}},
        }

    def log(self, run: Run, attempt: Attempt) -> Json:
        return self._log(run, attempt) | {
            "createdOn": time_of(attempt.started),
            "lastChangedOn": time_of(attempt.finished or attempt.started),
            "lineCount": len(attempt.lines),
        }

    def _timeline(self, run: Run, id_: str, records: list[Json]) -> Json:
        url = f"{self._build(run)}/Timeline/{id_}"
        times = [record[key] for record in records for key in ("startTime", "finishTime") if key in record]
        changed = max(times, default=time_of(run.queued))
        return {"id": id_, "changeId": len(times), "lastChangedOn": changed, "url": url, "records": records}

    def _records(self, run: Run, stage: str, attempt: Attempt, order: int) -> Iterator[Json]:
        """A stage has its phase, job and task from the moment it begins; log and issue belong to the task."""
        yield _record(run, stage, attempt, "Stage", name=stage, identifier=stage, order=order)
        if attempt.approval:
            checkpoint = _id(run.id, stage, attempt.number, "Checkpoint")
            stage_id = _id(run.id, stage, attempt.number, "Stage")
            yield _checkpoint(attempt.approval, checkpoint, stage_id, "Checkpoint")
            yield _checkpoint(attempt.approval, attempt.approval.id, checkpoint, "Checkpoint.Approval")
        if not attempt.started:
            return
        yield _record(run, stage, attempt, "Phase", name=stage, identifier=f"{stage}.{stage}", parent="Stage")
        yield _record(run, stage, attempt, "Job", name=stage, identifier=f"{stage}.{stage}.__default", parent="Phase")
        yield _record(run, stage, attempt, "Task", name=_STEPS[stage], parent="Job") | {
            "log": self._log(run, attempt),
            "issues": [{"type": "error", "category": "General", "message": attempt.error}] if attempt.error else [],
        }

    def _log(self, run: Run, attempt: Attempt) -> Json:
        url = f"{self._build(run)}/logs/{attempt.log_id}"
        return {"id": attempt.log_id, "type": "Container", "url": url}

    def _project(self, run: Run) -> str:
        return f"{self.url}/{project_id(self.definitions[run.pipeline_id].project)}"

    def _build(self, run: Run) -> str:
        return f"{self._project(run)}/_apis/build/Builds/{run.id}"

    def _web(self, run: Run) -> str:
        return f"{self._project(run)}/_build/results?buildId={run.id}"


def _record(
    run: Run,
    stage: str,
    attempt: Attempt,
    type_: str,
    *,
    name: str,
    identifier: str | None = None,
    parent: str | None = None,
    order: int = 1,
) -> Json:
    return _without_none(
        {
            "id": _id(run.id, stage, attempt.number, type_),
            "parentId": _id(run.id, stage, attempt.number, parent) if parent else None,
            "type": type_,
            "name": name,
            "identifier": identifier,
            "order": order,
            "state": attempt.state,
            "result": attempt.result,
            "startTime": time_of(attempt.started),
            "finishTime": time_of(attempt.finished),
            "attempt": attempt.number,
            "previousAttempts": [
                {
                    "attempt": earlier.number,
                    "timelineId": timeline_id(run, stage, earlier),
                    "recordId": _id(run.id, stage, earlier.number, type_),
                }
                for earlier in run.stages[stage][: attempt.number - 1]
            ],
            "errorCount": 1 if attempt.error else 0,
            "warningCount": 0,
        }
    )


def _checkpoint(approval: Approval, id_: str, parent: str, type_: str) -> Json:
    result = {"approved": "succeeded", "rejected": "failed", "canceled": "canceled"}.get(approval.status)
    return _without_none(
        {
            "id": id_,
            "parentId": parent,
            "type": type_,
            "name": type_,
            "state": "completed" if result else "inProgress",
            "result": result,
            "startTime": time_of(approval.created),
            "finishTime": time_of(approval.decided),
            "attempt": 1,
            "previousAttempts": [],
        }
    )


def _project(definition: Definition) -> Json:
    return {"id": project_id(definition.project), "name": definition.project, "state": "wellFormed"}


def project_id(project: str) -> str:
    return _id(project.lower())


def timeline_id(run: Run, stage: str = "", attempt: Attempt | None = None) -> str:
    return _id(run.id, "timeline", stage, attempt.number if attempt else 0)


def _id(*parts: object) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(map(str, parts))))


def time_of(moment: datetime | None) -> str | None:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z" if moment else None


def _without_none(document: Json) -> Json:
    return {key: value for key, value in document.items() if value is not None}
