"""What the local Azure DevOps answers: the part of its REST API that a client needs to queue, watch and steer runs.

What it does not know (a query, a body key, an address) it refuses, so that nothing is silently left out. It answers

    OPTIONS  _apis                                          where everything is
    GET      _apis/ResourceAreas                            empty: everything is at this address
    GET      {project}/_apis/pipelines[/{id}]
    POST     {project}/_apis/pipelines/{id}/preview
    POST GET {project}/_apis/pipelines/{id}/runs[/{run}]
    GET      {project}/_apis/build/Definitions/{id}
    GET      {project}/_apis/build/Builds[/{run}]
    PATCH    {project}/_apis/build/Builds/{run}[?retry=true]
    PATCH    {project}/_apis/build/builds/{run}/stages/{stage}
    GET      {project}/_apis/build/builds/{run}/Timeline[/{timeline}], Logs[/{log}], artifacts
    GET      {project}/_build/results?buildId={run}         for a browser: the stages and logs as text
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from aiohttp import hdrs, web

from bot.demo import azure_documents
from bot.demo.azure_documents import Documents, Json, collection
from bot.demo.runs import STAGES, Run, Runs

BRANCH = "refs/heads/main"
COMMIT = "5f3c1d9a7b2e4f6081a3c5d7e9f0b2a4c6d8e0f1"
_FAR = datetime.max.replace(tzinfo=UTC)


class Refusal(Exception):
    """Answered as a WrappedException."""

    def __init__(self, status: int, type_key: str, message: str) -> None:
        super().__init__(message)
        self.status, self.type_key = status, type_key


@dataclass(frozen=True, slots=True)
class Routes:
    """The handlers, over what Azure knows."""

    documents: Documents
    runs: Runs

    def table(self) -> list[web.RouteDef]:
        pipelines = "/{org}/{project}/_apis/pipelines"
        builds = "/{org}/{project}/_apis/build/Builds"
        build = r"/{org}/{project}/_apis/build/builds/{run:\d+}"
        return [
            web.options("/{org}/_apis", self._get_locations),
            web.get("/{org}/_apis/ResourceAreas", self._get_resource_areas),
            web.get(pipelines, self._list_pipelines),
            web.get(pipelines + r"/{pipeline:\d+}", self._get_pipeline),
            web.post(pipelines + r"/{pipeline:\d+}/preview", self._preview),
            web.post(pipelines + r"/{pipeline:\d+}/runs", self._run_pipeline),
            web.get(pipelines + r"/{pipeline:\d+}/runs", self._list_runs),
            web.get(pipelines + r"/{pipeline:\d+}/runs/{run:\d+}", self._get_run),
            web.get(r"/{org}/{project}/_apis/build/Definitions/{pipeline:\d+}", self._get_definition),
            web.get(builds, self._get_builds),
            web.get(builds + r"/{run:\d+}", self._get_build),
            web.patch(builds + r"/{run:\d+}", self._update_build),
            web.patch(build + "/stages/{stage}", self._update_stage),
            web.get(build + "/Timeline", self._get_timeline),
            web.get(build + "/Timeline/{timeline}", self._get_timeline),
            web.get(build + "/Logs", self._get_logs),
            web.get(build + r"/Logs/{log:\d+}", self._get_log),
            web.get(build + "/artifacts", self._get_artifacts),
            web.get("/{org}/{project}/_build/results", self._show_run),
        ]

    async def _get_locations(self, request: web.Request) -> web.Response:
        return web.json_response(azure_documents.locations())

    async def _get_resource_areas(self, request: web.Request) -> web.Response:
        return web.json_response(collection([]))

    async def _list_pipelines(self, request: web.Request) -> web.Response:
        query = _query(request, "orderBy", "$top")
        found = [self.documents.pipeline(pipeline_id) for pipeline_id in self._pipelines(request)]
        return web.json_response(collection(found[: int(query.get("$top", 10000))]))

    async def _get_pipeline(self, request: web.Request) -> web.Response:
        return web.json_response(self.documents.pipeline(self._pipeline(request)))

    async def _preview(self, request: web.Request) -> web.Response:
        pipeline_id = self._pipeline(request)
        body = await _body(request, "previewRun", "templateParameters", "resources")
        parameters = self._parameters(pipeline_id, body)
        lines = [f"# {name}: {json.dumps(value)}" for name, value in sorted(parameters.items())]
        lines += ["stages:", *(f"- stage: {stage}" for stage in STAGES)]
        return web.json_response({"finalYaml": "\n".join([*lines, ""])})

    async def _run_pipeline(self, request: web.Request) -> web.Response:
        pipeline_id = self._pipeline(request)
        body = await _body(request, "templateParameters", "resources")
        source = body.get("resources", {}).get("repositories", {}).get("self", {})
        run = self.runs.queue(
            pipeline_id,
            self._parameters(pipeline_id, body),
            branch=source.get("refName", BRANCH),
            version=source.get("version", COMMIT),
        )
        return web.json_response(self.documents.run(run))

    async def _list_runs(self, request: web.Request) -> web.Response:
        pipeline_id = self._pipeline(request)
        found = [run for run in self.runs.all.values() if run.pipeline_id == pipeline_id]
        return web.json_response(collection([self.documents.run(run) for run in reversed(found)]))

    async def _get_run(self, request: web.Request) -> web.Response:
        pipeline_id, run = self._pipeline(request), self.runs.all.get(int(request.match_info["run"]))
        if run is None or run.pipeline_id != pipeline_id:
            raise Refusal(404, "RunNotFoundException", f"Run {request.match_info['run']} not found.")
        return web.json_response(self.documents.run(run))

    async def _get_definition(self, request: web.Request) -> web.Response:
        return web.json_response(self.documents.definition(self._pipeline(request)))

    async def _get_builds(self, request: web.Request) -> web.Response:
        query = _query(request, "definitions", "buildIds", "statusFilter", "resultFilter", "queryOrder", "$top")
        pipelines = self._pipelines(request)
        found = [run for run in self.runs.all.values() if run.pipeline_id in pipelines and _matches(run, query)]
        found = _in_order(found, query.get("queryOrder", "queueTimeDescending"))[: int(query.get("$top", 1000))]
        return web.json_response(collection([self.documents.build(run) for run in found]))

    async def _get_build(self, request: web.Request) -> web.Response:
        return web.json_response(self.documents.build(self._run(request)))

    async def _update_build(self, request: web.Request) -> web.Response:
        run, query = self._run(request), _query(request, "retry")
        body = await _body(request, "status", "id")
        if query.get("retry", "").lower() == "true":
            self.runs.retry(run)
        elif body.get("status") == "cancelling":
            self.runs.cancel(run)
        else:
            raise Refusal(400, "InvalidArgumentValueException", "Only cancelling and retrying are known here.")
        return web.json_response(self.documents.build(run))

    async def _update_stage(self, request: web.Request) -> web.Response:
        run, stage = self._run(request), request.match_info["stage"]
        body = await _body(request, "state", "forceRetryAllJobs")
        if stage not in STAGES:
            raise Refusal(404, "StageNotFoundException", f"Stage {stage} not found.")
        if body.get("state") == "retry":
            self.runs.retry_stage(run, stage, force=body.get("forceRetryAllJobs", False))
        elif body.get("state") == "cancel":
            self.runs.cancel_stage(run, stage)
        else:
            raise Refusal(400, "InvalidArgumentValueException", "A stage can be cancelled and retried.")
        return web.Response()

    async def _get_timeline(self, request: web.Request) -> web.Response:
        run = self._run(request)
        wanted = request.match_info.get("timeline", azure_documents.timeline_id(run))
        if run.started is None and not run.approvals:
            return web.Response(status=204)
        if wanted == azure_documents.timeline_id(run):
            return web.json_response(self.documents.timeline(run))
        earlier = self.documents.attempt(run, wanted)
        if earlier is None:
            raise Refusal(404, "TimelineNotFoundException", f"Timeline {wanted} not found.")
        return web.json_response(earlier)

    async def _get_logs(self, request: web.Request) -> web.Response:
        run = self._run(request)
        return web.json_response(collection([self.documents.log(run, attempt) for attempt in run.attempts]))

    async def _get_log(self, request: web.Request) -> web.Response:
        query = _query(request, "startLine", "endLine")
        log_id = int(request.match_info["log"])
        attempt = next((attempt for attempt in self._run(request).attempts if attempt.log_id == log_id), None)
        if attempt is None:
            raise Refusal(404, "BuildLogNotFoundException", f"Log {log_id} not found.")
        first, last = int(query.get("startLine", 1)), int(query.get("endLine", len(attempt.lines)))
        lines = attempt.lines[max(first - 1, 0) : last]
        if request.headers.get(hdrs.ACCEPT, "").startswith("text/plain"):
            return web.Response(text="".join(f"{line}\n" for line in lines))
        return web.json_response(collection(lines))

    async def _get_artifacts(self, request: web.Request) -> web.Response:
        """Our pipelines publish none: what they make is in the registry."""
        self._run(request)
        _query(request)
        return web.json_response(collection([]))

    async def _show_run(self, request: web.Request) -> web.Response:
        run = self.runs.all.get(int(request.query.get("buildId", "0")))
        if run is None:
            raise web.HTTPNotFound
        lines = [f"{run.name}: {run.result or run.status}", ""]
        lines += [f"{stage}: {run.current(stage).result or run.current(stage).state}" for stage in STAGES]
        lines += [line for attempt in run.attempts for line in ("", *attempt.lines)]
        return web.Response(text="\n".join(lines))

    def _pipelines(self, request: web.Request) -> list[int]:
        """The project's pipelines; a project is known by name, in any case, or id."""
        project = request.match_info["project"]
        names = {definition.project for definition in self.documents.definitions.values()}
        found = [name for name in names if project.lower() in (name.lower(), azure_documents.project_id(name))]
        if not found:
            message = f"TF200016: The following project does not exist: {project}."
            raise Refusal(404, "ProjectDoesNotExistWithNameException", message)
        return [
            pipeline_id for pipeline_id, definition in self.documents.definitions.items() if definition.project in found
        ]

    def _pipeline(self, request: web.Request) -> int:
        pipeline_id = int(request.match_info["pipeline"])
        if pipeline_id not in self._pipelines(request):
            raise Refusal(404, "PipelineNotFoundException", f"Pipeline {pipeline_id} not found.")
        return pipeline_id

    def _run(self, request: web.Request) -> Run:
        run = self.runs.all.get(int(request.match_info["run"]))
        if run is None or run.pipeline_id not in self._pipelines(request):
            message = f"The requested build {request.match_info['run']} could not be found."
            raise Refusal(404, "BuildNotFoundException", message)
        return run

    def _parameters(self, pipeline_id: int, body: Json) -> dict[str, str]:
        parameters: dict[str, str] = body.get("templateParameters") or {}
        unknown = sorted(set(parameters) - self.documents.definitions[pipeline_id].parameters)
        if unknown:
            message = "\n".join(f"Unexpected parameter '{name}'" for name in unknown)
            raise Refusal(400, "PipelineValidationException", message)
        return parameters


def _query(request: web.Request, *known: str) -> Mapping[str, str]:
    unknown = set(request.query) - {*known, "api-version"}
    if unknown:
        message = f"Not known to this server: {', '.join(sorted(unknown))}."
        raise Refusal(400, "InvalidArgumentValueException", message)
    return request.query


async def _body(request: web.Request, *known: str) -> Json:
    try:
        body = await request.json()
    except ValueError as error:
        raise Refusal(400, "InvalidArgumentValueException", f"The body is not JSON: {error}") from error
    if not isinstance(body, dict) or set(body) - set(known):
        raise Refusal(400, "InvalidArgumentValueException", f"The body must be an object of {', '.join(known)}.")
    return body


def _matches(run: Run, query: Mapping[str, str]) -> bool:
    """Every filter is a list with commas in between; `all` lets every status through."""
    values = {
        "definitions": str(run.pipeline_id),
        "buildIds": str(run.id),
        "statusFilter": run.status,
        "resultFilter": run.result or "none",
    }
    wanted = {name: query[name].split(",") for name in values if query.get(name, "all") != "all"}
    return all(values[name] in wanted[name] for name in wanted)


def _in_order(runs: list[Run], order: str) -> list[Run]:
    """What has no time yet counts as latest."""
    match = re.fullmatch(r"(finish|start|queue)Time(Ascending|Descending)", order)
    if match is None:
        raise Refusal(400, "InvalidArgumentValueException", f"The order {order} is not known.")
    times: dict[str, Callable[[Run], datetime | None]] = {
        "finish": lambda run: run.finished,
        "start": lambda run: run.started,
        "queue": lambda run: run.queued,
    }
    time = times[match[1]]
    return sorted(runs, key=lambda run: (time(run) or _FAR, run.id), reverse=match[2] == "Descending")
