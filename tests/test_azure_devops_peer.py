"""The local Azure DevOps, driven by the client library that the bot uses, and checked against Microsoft's swagger."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from bot.demo.agent import ScriptedAgent
from bot.demo.azure_devops import AzureDevOps, Exchange, close_after, close_before, throttled
from bot.demo.runs import STAGES, AgentRun, Definition, StageFailed
from tests.peers import swagger

# Read by the library when it is imported, and where it would keep the addresses of a server that used the same port.
os.environ.setdefault("AZURE_DEVOPS_CACHE_DIR", tempfile.mkdtemp(prefix="azure-devops-"))

from azure.devops.connection import Connection
from azure.devops.exceptions import AzureDevOpsAuthenticationError, AzureDevOpsServiceError
from azure.devops.v7_1.build.models import Build, UpdateStageParameters
from azure.devops.v7_1.pipelines.models import (
    RepositoryResourceParameters,
    RunPipelineParameters,
    RunResourcesParameters,
    Variable,
)
from msrest.authentication import BasicAuthentication
from msrest.exceptions import ClientException, ClientRequestError

PROJECT = "platform-images"
SDK, ASPNET, WEBSITE = 12, 7, 3
DEFINITIONS = {
    SDK: Definition(name="dotnet-sdk-6", project=PROJECT),
    ASPNET: Definition(name="dotnet-aspnet-8", project=PROJECT),
    WEBSITE: Definition(name="website", project="shop"),
}
PARAMETERS = {"image": "dotnet-sdk-6", "base": "mcr.microsoft.com/dotnet/sdk@sha256:" + "ab" * 32, "request_id": "r42"}
MONDAY = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
DEADLINE_S = 10.0


class Steps:
    """An agent whose stages end when the test says so."""

    def __init__(self) -> None:
        self.may_begin = asyncio.Event()
        self.may_begin.set()
        self.outcome: asyncio.Queue[str] = asyncio.Queue()
        self.played: list[tuple[str, int]] = []

    async def run(self, run: AgentRun) -> None:
        await self.may_begin.wait()
        for name in STAGES[STAGES.index(run.first_stage) :]:
            async with run.stage(name) as stage:
                self.played.append((name, run.attempt))
                await stage.log(f"{name} of {run.name}\nsecond line\nthird line")
                if error := await self.outcome.get():
                    raise StageFailed(error)

    def end_stages(self, *errors: str) -> None:
        """Let one stage end for each: empty for succeeded, else the error."""
        for error in errors:
            self.outcome.put_nowait(error)


@dataclass
class Client:
    """The two clients of the library; its methods block."""

    pipelines: Any
    build: Any

    async def run_pipeline(self, pipeline_id: int = SDK, **parameters: str) -> Any:
        asked = RunPipelineParameters(template_parameters=PARAMETERS | parameters)
        return await asyncio.to_thread(self.pipelines.run_pipeline, asked, PROJECT, pipeline_id)

    async def get_build(self, build_id: int) -> Any:
        return await asyncio.to_thread(self.build.get_build, PROJECT, build_id)

    async def get_builds(self, **filters: Any) -> list[int]:
        return [build.id for build in await asyncio.to_thread(self.build.get_builds, PROJECT, **filters)]

    async def records(self, build_id: int, timeline_id: str | None = None) -> dict[tuple[str, str], Any]:
        """Timeline records by type and name of the stage they belong to."""
        timeline = await asyncio.to_thread(self.build.get_build_timeline, PROJECT, build_id, timeline_id)
        by_id = {record.id: record for record in timeline.records}
        found = {}
        for record in timeline.records:
            stage = record
            while stage.parent_id:
                stage = by_id[stage.parent_id]
            found[record.type, stage.identifier] = record
        return found

    async def log(self, build_id: int, log_id: int, **lines: int) -> str:
        chunks = await asyncio.to_thread(self.build.get_build_log, PROJECT, build_id, log_id, **lines)
        return b"".join(chunks).decode()

    async def update_build(self, build_id: int, build: Build, **how: Any) -> Any:
        return await asyncio.to_thread(self.build.update_build, build, PROJECT, build_id, **how)

    async def update_stage(self, build_id: int, stage: str, state: str, *, force: bool | None = None) -> None:
        change = UpdateStageParameters(state=state, force_retry_all_jobs=force)
        await asyncio.to_thread(self.build.update_stage, change, build_id, stage, PROJECT)

    async def until(self, build_id: int, condition: Callable[[Any], bool]) -> Any:
        """The build, as soon as the condition holds."""
        return await eventually(lambda: self.get_build(build_id), condition)

    async def until_stage(self, build_id: int, stage: str, state: str = "inProgress") -> None:
        await self.until(build_id, lambda build: build.status != "notStarted")
        await eventually(lambda: self.records(build_id), lambda records: records["Stage", stage].state == state)


async def eventually(ask: Callable[[], Awaitable[Any]], condition: Callable[[Any], bool]) -> Any:
    """What `ask` answers, as soon as the condition holds for it."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition(answer := await ask()):  # noqa: ASYNC110 -- the server can only be asked
            await asyncio.sleep(0.01)
    return answer


async def connect(server: AzureDevOps, *, token: str = "") -> Client:
    connection = Connection(base_url=server.url, creds=BasicAuthentication("", token))
    clients = connection.clients_v7_1
    client = Client(
        await asyncio.to_thread(clients.get_pipelines_client), await asyncio.to_thread(clients.get_build_client)
    )
    for each in (client.pipelines, client.build):
        each.config.connection.timeout = DEADLINE_S
        each.config.retry_policy.policy.backoff_factor = 0
        each.config.hooks.append(read_to_end)
    return client


def read_to_end(answer: Any, **_: Any) -> None:
    """The library leaves the answer to a stage's update unread, and with it a connection open."""
    _ = answer.content


@pytest.fixture(scope="session")
def described() -> swagger.Swagger | None:
    return swagger.load()


@pytest.fixture
def validate(described: swagger.Swagger | None) -> Iterator[Callable[[AzureDevOps], AzureDevOps]]:
    """Has the exchanges of a server checked; a problem fails the test at its end."""

    def follow(server: AzureDevOps) -> AzureDevOps:
        if described:
            server.on_exchange.append(described)
        return server

    yield follow
    if described:
        problems, described.problems = described.problems, []
        assert problems == []


@pytest.fixture
def agent() -> Steps:
    return Steps()


@pytest.fixture
async def server(agent: Steps, validate: Callable[[AzureDevOps], AzureDevOps]) -> AsyncIterator[AzureDevOps]:
    async with validate(AzureDevOps(agent=agent, definitions=DEFINITIONS, now=lambda: MONDAY)) as server:
        yield server


@pytest.fixture
async def client(server: AzureDevOps) -> Client:
    return await connect(server)


async def test_pipelines_are_listed(client: Client) -> None:
    """A project's pipelines are found by list and by id."""
    listed = await asyncio.to_thread(client.pipelines.list_pipelines, PROJECT)
    one = await asyncio.to_thread(client.pipelines.get_pipeline, PROJECT, ASPNET)
    assert [(pipeline.id, pipeline.name) for pipeline in listed] == [(SDK, "dotnet-sdk-6"), (ASPNET, "dotnet-aspnet-8")]
    assert one.name == "dotnet-aspnet-8"


async def test_preview_runs_nothing(client: Client) -> None:
    """A preview answers the YAML and queues no run."""
    asked = RunPipelineParameters(preview_run=True, template_parameters=PARAMETERS)
    preview = await asyncio.to_thread(client.pipelines.preview, asked, PROJECT, SDK)
    assert "- stage: Build" in preview.final_yaml
    assert await client.get_builds() == []


async def test_queued_run_is_the_same_everywhere(client: Client, server: AzureDevOps) -> None:
    """A queued run carries its parameters and its name with the request id, as a run, in the list and as a build."""
    queued = await client.run_pipeline()
    run = await asyncio.to_thread(client.pipelines.get_run, PROJECT, SDK, queued.id)
    (listed,) = await asyncio.to_thread(client.pipelines.list_runs, PROJECT, SDK)
    build = await client.get_build(queued.id)
    web_page = f"{server.url}/"
    for each in (queued, run, listed):
        assert (each.name, each.state, each.result) == ("20261123.1-r42", "inProgress", None)
        assert each.created_date == MONDAY
        assert each.pipeline.id == SDK
        assert each._links.additional_properties["web"]["href"].startswith(web_page)
    assert run.template_parameters == PARAMETERS
    assert (build.build_number, build.template_parameters) == ("20261123.1-r42", PARAMETERS)
    assert (build.definition.id, build.project.name, build.queue_time) == (SDK, PROJECT, MONDAY)
    assert build._links.additional_properties["web"]["href"].endswith(f"?buildId={queued.id}")


async def test_run_names_count_within_day_and_pipeline(client: Client) -> None:
    """The number in a run's name counts the runs of its pipeline on that day."""
    runs = [await client.run_pipeline(pipeline) for pipeline in (SDK, ASPNET, SDK)]
    assert [run.name for run in runs] == ["20261123.1-r42", "20261123.1-r42", "20261123.2-r42"]


async def test_run_names_begin_again_each_day(agent: Steps, validate: Callable[[AzureDevOps], AzureDevOps]) -> None:
    """The first run of the next day is number 1 again."""
    times = [MONDAY]
    async with validate(AzureDevOps(agent=agent, definitions=DEFINITIONS, now=lambda: times[-1])) as server:
        client = await connect(server)
        await client.run_pipeline()
        times.append(MONDAY + timedelta(days=1))
        assert (await client.run_pipeline()).name == "20261124.1-r42"


async def test_projects_are_apart(client: Client) -> None:
    """What runs in one project is not seen from another."""
    run = await asyncio.to_thread(client.pipelines.run_pipeline, RunPipelineParameters(), "shop", WEBSITE)
    assert await client.get_builds() == []
    assert [build.id for build in await asyncio.to_thread(client.build.get_builds, "shop")] == [run.id]
    with pytest.raises(AzureDevOpsServiceError):
        await client.get_build(run.id)


async def test_run_is_built_from_the_branch_asked_for(client: Client) -> None:
    """The repository resource sets branch and commit of a run."""
    source = RepositoryResourceParameters(ref_name="refs/heads/next", version="c0ffee")
    asked = RunPipelineParameters(resources=RunResourcesParameters(repositories={"self": source}))
    run = await asyncio.to_thread(client.pipelines.run_pipeline, asked, PROJECT, SDK)
    build = await client.get_build(run.id)
    assert (build.source_branch, build.source_version) == ("refs/heads/next", "c0ffee")


async def test_run_that_did_not_start_has_no_timeline(client: Client, agent: Steps) -> None:
    """A queued build without an agent is notStarted, without start time and timeline."""
    agent.may_begin.clear()
    run = await client.run_pipeline()
    build = await client.get_build(run.id)
    assert (build.status, build.start_time) == ("notStarted", None)
    assert await asyncio.to_thread(client.build.get_build_timeline, PROJECT, run.id) is None


async def test_stages_pass_one_after_the_other(client: Client, agent: Steps) -> None:
    """While Test runs, Build has succeeded and Push is pending; at the end everything has succeeded."""
    run = await client.run_pipeline()
    agent.end_stages("")
    await client.until_stage(run.id, "Test")
    records = await client.records(run.id)
    stages = [records["Stage", name] for name in STAGES]
    assert [(stage.state, stage.result, stage.order) for stage in stages] == [
        ("completed", "succeeded", 1),
        ("inProgress", None, 2),
        ("pending", None, 3),
    ]
    assert [records[type_, "Test"].state for type_ in ("Phase", "Job", "Task")] == ["inProgress"] * 3
    assert (await client.get_build(run.id)).status == "inProgress"

    agent.end_stages("", "")
    build = await client.until(run.id, lambda build: build.status == "completed")
    ended = await asyncio.to_thread(client.pipelines.get_run, PROJECT, SDK, run.id)
    assert (build.result, build.finish_time) == ("succeeded", MONDAY)
    assert (ended.state, ended.result, ended.finished_date) == ("completed", "succeeded", MONDAY)


async def test_failed_stage_names_its_error_and_log(client: Client, agent: Steps) -> None:
    """A failed stage has the error on its task, with a log to read; the stages after it are skipped."""
    run = await client.run_pipeline()
    agent.end_stages("", "expected 200, got 500")
    build = await client.until(run.id, lambda build: build.status == "completed")
    records = await client.records(run.id)
    task = records["Task", "Test"]
    assert build.result == "failed"
    assert [records["Stage", name].result for name in STAGES] == ["succeeded", "failed", "skipped"]
    assert [(issue.type, issue.message) for issue in task.issues] == [("error", "expected 200, got 500")]
    assert ("Task", "Push") not in records
    assert "Test of 20261123.1-r42" in await client.log(run.id, task.log.id)


async def test_logs_are_read_as_text_and_by_line(client: Client, agent: Steps) -> None:
    """Logs are listed with their length, and read whole or in part, as text or as lines."""
    run = await client.run_pipeline()
    agent.end_stages("")
    await client.until_stage(run.id, "Test")
    logs = await asyncio.to_thread(client.build.get_build_logs, PROJECT, run.id)
    lines = await asyncio.to_thread(client.build.get_build_log_lines, PROJECT, run.id, 1, 2, 3)
    assert [(log.id, log.line_count) for log in logs] == [(1, 3), (2, 3)]
    assert lines == ["2026-11-23T06:00:00.0000000Z second line", "2026-11-23T06:00:00.0000000Z third line"]
    assert await client.log(run.id, 1, start_line=2, end_line=2) == "2026-11-23T06:00:00.0000000Z second line\n"


async def test_artifacts_are_none(client: Client) -> None:
    """A run has no artifacts."""
    run = await client.run_pipeline()
    assert await asyncio.to_thread(client.build.get_artifacts, PROJECT, run.id) == []


async def test_cancel_stops_the_agent(client: Client, agent: Steps) -> None:
    """A cancelled run ends as canceled in the stage it was in, and the agent plays no further."""
    run = await client.run_pipeline()
    agent.end_stages("")
    await client.until_stage(run.id, "Test")
    answered = await client.update_build(run.id, Build(status="cancelling"))
    build = await client.until(run.id, lambda build: build.status == "completed")
    records = await client.records(run.id)
    assert answered.status == "cancelling"
    assert build.result == "canceled"
    assert [records["Stage", name].result for name in STAGES] == ["succeeded", "canceled", "skipped"]
    assert agent.played == [("Build", 1), ("Test", 1)]


async def test_cancelled_run_can_be_retried(client: Client, agent: Steps) -> None:
    """A cancelled run that is retried goes on where it was cancelled and can succeed."""
    run = await client.run_pipeline()
    await client.until_stage(run.id, "Build")
    await client.update_build(run.id, Build(status="cancelling"))
    await client.until(run.id, lambda build: build.status == "completed")
    assert (await client.update_build(run.id, Build(), retry=True)).status == "inProgress"
    agent.end_stages("", "", "")
    build = await client.until(run.id, lambda build: build.status == "completed")
    assert build.result == "succeeded"


async def test_cancel_before_the_start(client: Client, agent: Steps) -> None:
    """A run can be cancelled before an agent took it."""
    agent.may_begin.clear()
    run = await client.run_pipeline()
    await client.update_build(run.id, Build(status="cancelling"))
    build = await client.until(run.id, lambda build: build.status == "completed")
    assert (build.result, build.start_time) == ("canceled", None)


async def test_completed_run_cannot_be_cancelled(client: Client, agent: Steps) -> None:
    """Cancelling what has ended is refused with the service's own error."""
    run = await client.run_pipeline()
    agent.end_stages("", "", "")
    await client.until(run.id, lambda build: build.status == "completed")
    with pytest.raises(AzureDevOpsServiceError) as refused:
        await client.update_build(run.id, Build(status="cancelling"))
    assert refused.value.type_key == "BuildStatusInvalidChangeException"


async def test_retried_stage_is_a_new_attempt(client: Client, agent: Steps) -> None:
    """Retrying Test plays Test and Push again as attempt 2; the first attempt stays readable in its own timeline."""
    run = await client.run_pipeline()
    agent.end_stages("", "flaky")
    await client.until(run.id, lambda build: build.status == "completed")
    await client.update_stage(run.id, "Test", "retry", force=False)
    assert (await client.get_build(run.id)).status == "inProgress"
    agent.end_stages("", "")
    build = await client.until(run.id, lambda build: build.status == "completed")

    records = await client.records(run.id)
    test = records["Stage", "Test"]
    (earlier,) = test.previous_attempts
    before = await client.records(run.id, earlier.timeline_id)
    assert build.result == "succeeded"
    assert agent.played == [("Build", 1), ("Test", 1), ("Test", 2), ("Push", 2)]
    assert [records["Stage", name].attempt for name in STAGES] == [1, 2, 2]
    assert (earlier.attempt, test.result) == (1, "succeeded")
    assert before["Stage", "Test"].id == earlier.record_id != test.id
    assert before["Task", "Test"].issues[0].message == "flaky"
    assert [record.log.id for record in (before["Task", "Test"], records["Task", "Test"])] == [2, 3]


async def test_only_what_failed_is_retried(client: Client, agent: Steps) -> None:
    """Neither a run under way nor a stage that succeeded or was skipped is retried; with force the second is."""
    run = await client.run_pipeline()
    with pytest.raises(AzureDevOpsServiceError):
        await client.update_stage(run.id, "Build", "retry")
    agent.end_stages("", "broken")
    await client.until(run.id, lambda build: build.status == "completed")
    for stage in ("Build", "Push"):
        with pytest.raises(AzureDevOpsServiceError):
            await client.update_stage(run.id, stage, "retry", force=False)
    await client.update_stage(run.id, "Build", "retry", force=True)
    await client.until_stage(run.id, "Build")
    assert agent.played[-1] == ("Build", 2)


async def test_retried_build_goes_on_at_the_failed_stage(client: Client, agent: Steps) -> None:
    """Retrying a whole build plays it from the stage that failed; one under way or succeeded is not retried."""
    run = await client.run_pipeline()
    with pytest.raises(AzureDevOpsServiceError):
        await client.update_build(run.id, Build(), retry=True)
    agent.end_stages("", "", "no space left")
    await client.until(run.id, lambda build: build.status == "completed")
    answered = await client.update_build(run.id, Build(), retry=True)
    agent.end_stages("")
    build = await client.until(run.id, lambda build: build.status == "completed")
    assert (answered.status, build.result) == ("inProgress", "succeeded")
    assert agent.played[-1] == ("Push", 2)
    with pytest.raises(AzureDevOpsServiceError):
        await client.update_build(run.id, Build(), retry=True)


async def test_cancelled_stage(client: Client, agent: Steps) -> None:
    """A stage cancelled before its turn is not played and ends the run as canceled, as one cancelled under way does."""
    first = await client.run_pipeline()
    await client.until_stage(first.id, "Build")
    await client.update_stage(first.id, "Test", "cancel")
    with pytest.raises(AzureDevOpsServiceError):
        await client.update_stage(first.id, "Test", "retry")
    agent.end_stages("")
    build = await client.until(first.id, lambda build: build.status == "completed")
    records = await client.records(first.id)
    assert build.result == "canceled"
    assert [records["Stage", name].result for name in STAGES] == ["succeeded", "canceled", "skipped"]

    second = await client.run_pipeline()
    await client.until_stage(second.id, "Build")
    await client.update_stage(second.id, "Build", "cancel")
    build = await client.until(second.id, lambda build: build.status == "completed")
    assert build.result == "canceled"


async def test_builds_are_filtered_and_ordered(client: Client, agent: Steps) -> None:
    """Builds are found by pipeline, id, status and result, newest first unless asked otherwise."""
    failed = await client.run_pipeline(SDK)
    agent.end_stages("broken")
    await client.until(failed.id, lambda build: build.status == "completed")
    running = await client.run_pipeline(SDK)
    await client.until_stage(running.id, "Build")
    agent.may_begin.clear()
    waiting = await client.run_pipeline(ASPNET)

    assert await client.get_builds() == [waiting.id, running.id, failed.id]
    assert await client.get_builds(definitions=[SDK]) == [running.id, failed.id]
    assert await client.get_builds(build_ids=[failed.id, waiting.id, 999]) == [waiting.id, failed.id]
    assert await client.get_builds(status_filter="inProgress,notStarted") == [waiting.id, running.id]
    assert await client.get_builds(status_filter="all", top=2) == [waiting.id, running.id]
    assert await client.get_builds(result_filter="failed") == [failed.id]
    assert await client.get_builds(query_order="queueTimeAscending") == [failed.id, running.id, waiting.id]


async def test_unknown_things_are_refused_by_name(client: Client) -> None:
    """Pipeline, run, build, log, stage, project and template parameter that do not exist are errors of the service."""
    run = await client.run_pipeline()
    asked = RunPipelineParameters(template_parameters={"imgae": "dotnet-sdk-6"})
    empty = RunPipelineParameters()
    cases: list[tuple[str, Callable[[], Any]]] = [
        ("PipelineNotFoundException", lambda: client.pipelines.run_pipeline(empty, PROJECT, 99)),
        ("ProjectDoesNotExistWithNameException", lambda: client.pipelines.list_pipelines("nowhere")),
        ("PipelineValidationException", lambda: client.pipelines.run_pipeline(asked, PROJECT, SDK)),
        ("RunNotFoundException", lambda: client.pipelines.get_run(PROJECT, ASPNET, run.id)),
        ("BuildNotFoundException", lambda: client.build.get_build(PROJECT, 99)),
        ("BuildLogNotFoundException", lambda: client.build.get_build_log_lines(PROJECT, run.id, 99)),
        (
            "StageNotFoundException",
            lambda: client.build.update_stage(UpdateStageParameters(state="cancel"), run.id, "Deploy", PROJECT),
        ),
    ]
    for type_key, call in cases:
        with pytest.raises(AzureDevOpsServiceError) as refused:
            await asyncio.to_thread(call)
        assert refused.value.type_key == type_key
    assert await client.get_builds() == [run.id]


async def test_what_the_server_does_not_know_is_refused(client: Client) -> None:
    """A query or a body key that would otherwise be ignored is an error."""
    with pytest.raises(AzureDevOpsServiceError, match="tagFilters"):
        await client.get_builds(tag_filters=["nightly"])
    asked = RunPipelineParameters(variables={"a": Variable(value="b")})
    with pytest.raises(AzureDevOpsServiceError, match="templateParameters"):
        await asyncio.to_thread(client.pipelines.run_pipeline, asked, PROJECT, SDK)


async def test_token_is_asked_for(agent: Steps, validate: Callable[[AzureDevOps], AzureDevOps]) -> None:
    """A server with a token lets nobody in without it, but for the page of a run, which a browser opens."""
    async with validate(AzureDevOps(agent=agent, definitions=DEFINITIONS, token="right")) as server:
        allowed = await connect(server, token="right")
        run = await allowed.run_pipeline()
        async with (
            aiohttp.ClientSession() as session,
            session.get(run._links.additional_properties["web"]["href"]) as page,
        ):
            assert page.status == 200
        stranger = replace(allowed)
        connection = Connection(base_url=server.url, creds=BasicAuthentication("", "wrong"))
        stranger.pipelines = await asyncio.to_thread(connection.clients_v7_1.get_pipelines_client)
        with pytest.raises(AzureDevOpsAuthenticationError):
            await stranger.run_pipeline()


async def test_writing_needs_an_api_version(server: AzureDevOps) -> None:
    """A POST without an api-version is refused, and an organization is known in any case."""
    async with aiohttp.ClientSession() as session:
        base = server.url.replace("contoso", "CONTOSO")
        async with session.post(f"{base}/{PROJECT}/_apis/pipelines/{SDK}/runs", json={}) as answer:
            assert answer.status == 400
            assert (await answer.json())["typeKey"] == "VssVersionNotSpecifiedException"
        async with session.options(f"{server.url.replace('contoso', 'fabrikam')}/_apis") as answer:
            assert answer.status == 404


async def test_page_of_a_run_reads_in_a_browser(client: Client, agent: Steps) -> None:
    """The link of a run shows its stages and logs."""
    run = await client.run_pipeline()
    agent.end_stages("broken")
    await client.until(run.id, lambda build: build.status == "completed")
    async with (
        aiohttp.ClientSession() as session,
        session.get(run._links.additional_properties["web"]["href"]) as answer,
    ):
        text = await answer.text()
    assert "20261123.1-r42: failed" in text
    assert "Build of 20261123.1-r42" in text


async def test_run_goes_on_after_a_restart(tmp_path: Path, validate: Callable[[AzureDevOps], AzureDevOps]) -> None:
    """A stage under way when the process stops is played again from its beginning; what was done before is kept."""
    state = tmp_path / "runs.json"
    first_life, second_life = Steps(), Steps()
    async with validate(AzureDevOps(agent=first_life, definitions=DEFINITIONS, state=state)) as server:
        client = await connect(server)
        run = await client.run_pipeline()
        first_life.end_stages("")
        await client.until_stage(run.id, "Test")
    async with validate(AzureDevOps(agent=second_life, definitions=DEFINITIONS, state=state)) as server:
        client = await connect(server)
        second_life.end_stages("", "")
        build = await client.until(run.id, lambda build: build.status == "completed")
        records = await client.records(run.id)
        log = await client.log(run.id, records["Task", "Test"].log.id)
        following = await client.run_pipeline()
    assert (build.build_number, build.result) == (run.name, "succeeded")
    assert first_life.played == [("Build", 1), ("Test", 1)]
    assert second_life.played[:2] == [("Test", 1), ("Push", 1)]
    assert records["Task", "Test"].log.id == 2
    assert len(log.splitlines()) == 3
    assert following.id == run.id + 1


@pytest.mark.parametrize(
    ("crash", "result"), [("cancelled early", "canceled"), ("cancelled", "canceled"), ("after Push", "succeeded")]
)
async def test_run_ends_that_only_lacked_its_result(tmp_path: Path, crash: str, result: str) -> None:
    """A process that died while cancelling or after the last stage ends the run when it is back, and plays nothing."""
    state, image = tmp_path / "runs.json", tmp_path / "crashed.json"

    class Crashing(Steps):
        async def run(self, run: AgentRun) -> None:
            try:
                await super().run(run)
            finally:
                shutil.copy(state, image)

    first_life, second_life = Crashing(), Steps()
    async with AzureDevOps(agent=first_life, definitions=DEFINITIONS, state=state) as server:
        client = await connect(server)
        if crash == "cancelled early":
            first_life.may_begin.clear()
        run = await client.run_pipeline()
        if crash != "cancelled early":
            await client.until_stage(run.id, "Build")
        if crash != "after Push":
            await client.update_build(run.id, Build(status="cancelling"))
        first_life.end_stages("", "", "")
        await client.until(run.id, lambda build: build.status == "completed")
    async with AzureDevOps(agent=second_life, definitions=DEFINITIONS, state=image) as server:
        client = await connect(server)
        build = await client.until(run.id, lambda build: build.status == "completed")
    assert build.result == result
    assert second_life.played == []


async def test_status_and_closed_connection_happen_before_the_action(client: Client, server: AzureDevOps) -> None:
    """A failing POST is sent once and queues nothing, whether answered or cut."""
    for how, error in ((500, AzureDevOpsServiceError), (close_before, ClientException)):
        server.requests.clear()
        server.fail_next("POST", r"/runs$", how)
        with pytest.raises(error):
            await client.run_pipeline()
        assert [method for method, _ in server.requests] == ["POST"]
    assert await client.get_builds() == []
    assert (await client.run_pipeline()).id == 1


async def test_connection_closed_after_the_action(client: Client, server: AzureDevOps) -> None:
    """A run can be queued without its caller learning of it, and is found by its parameters afterwards."""
    server.fail_next("POST", r"/runs$", close_after)
    with pytest.raises(ClientRequestError):
        await client.run_pipeline(request_id="lost")
    (build_id,) = await client.get_builds(definitions=[SDK])
    assert (await client.get_build(build_id)).template_parameters["request_id"] == "lost"
    assert [method for method, path in server.requests if path.endswith("/runs")] == ["POST"]


async def test_throttled_request_is_tried_again(client: Client, server: AzureDevOps) -> None:
    """429 with Retry-After is answered as often as asked; the library repeats a GET until it passes."""
    run = await client.run_pipeline()
    server.requests.clear()
    server.fail_next("GET", r"/Builds/\d+$", throttled(0), times=2)
    assert (await client.get_build(run.id)).id == run.id
    assert len(server.requests) == 3


async def test_failure_of_ones_own(client: Client, server: AzureDevOps) -> None:
    """A callable decides itself what a request is answered, here with less than the truth."""

    async def empty(request: web.Request, handler: Handler) -> web.StreamResponse:
        return web.json_response({"count": 0, "value": []})

    run = await client.run_pipeline()
    server.fail_next("GET", r"/Builds$", empty)
    assert await client.get_builds() == []
    assert await client.get_builds() == [run.id]


async def test_scripted_agent_plays_build_test_push() -> None:
    """The demo's agent takes its time in each stage, pushes in the last, and fails the stage it was told to, in red."""
    pushed: list[str] = []
    slept: list[float] = []

    async def push(run: AgentRun) -> None:
        pushed.append(run.parameters["image"])

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    def fails(run: AgentRun) -> tuple[str, list[str]] | None:
        return ("Test", ["expected 200, got 500"]) if run.attempt == 1 else None

    durations = {"Build": 6.0, "Test": 4.0, "Push": 2.0}
    agent = ScriptedAgent(durations, push, fails, sleep)
    async with AzureDevOps(agent=agent, definitions=DEFINITIONS) as server:
        client = await connect(server)
        run = await client.run_pipeline()
        failed = await client.until(run.id, lambda build: build.status == "completed")
        log = await client.log(run.id, (await client.records(run.id))["Task", "Test"].log.id)
        assert (failed.result, pushed) == ("failed", [])
        assert sum(slept) == pytest.approx(durations["Build"] + durations["Test"])
        assert "##[section]Starting: Test dotnet-sdk-6\n" in log
        assert "\x1b[31;1mexpected 200, got 500\x1b[0m\n" in log
        assert log.endswith("##[error]Bash exited with code '1'.\n")

        await client.update_stage(run.id, "Test", "retry")
        passed = await client.until(run.id, lambda build: build.status == "completed")
    assert (passed.result, pushed) == ("succeeded", ["dotnet-sdk-6"])


async def test_broken_agent_fails_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """An exception in the push fails the Push stage with its text and is logged; the run does not hang."""

    async def push(run: AgentRun) -> None:
        raise OSError("registry is gone")

    agent = ScriptedAgent(dict.fromkeys(STAGES, 0.0), push)
    async with AzureDevOps(agent=agent, definitions=DEFINITIONS) as server:
        client = await connect(server)
        run = await client.run_pipeline()
        build = await client.until(run.id, lambda build: build.status == "completed")
        records = await client.records(run.id)
    assert build.result == "failed"
    assert records["Task", "Push"].issues[0].message == "registry is gone"
    assert "registry is gone" in caplog.text


async def test_agent_that_gives_up_a_stage_fails_it() -> None:
    """A stage that its agent leaves by a timeout of its own has failed, not been skipped."""

    class Impatient:
        async def run(self, run: AgentRun) -> None:
            async with asyncio.timeout(0), run.stage("Build"):
                await asyncio.Event().wait()

    async with AzureDevOps(agent=Impatient(), definitions=DEFINITIONS) as server:
        client = await connect(server)
        run = await client.run_pipeline()
        build = await client.until(run.id, lambda build: build.status == "completed")
        records = await client.records(run.id)
    assert build.result == "failed"
    assert [records["Stage", name].result for name in STAGES] == ["failed", "skipped", "skipped"]


EXCHANGE = Exchange(
    method="GET",
    path=f"/contoso/{PROJECT}/_apis/build/Builds/1",
    query={},
    body=None,
    status=200,
    answer={"id": 1, "status": "completed", "queueTime": "2026-11-23T06:00:00Z"},
)


@pytest.mark.parametrize(
    ("exchange", "problem"),
    [
        pytest.param(EXCHANGE, "", id="right"),
        pytest.param(replace(EXCHANGE, path="/contoso/p/_apis/build/Bulids/1"), "no such operation", id="path"),
        pytest.param(replace(EXCHANGE, answer={"id": "1"}), "answer.id: '1' is not of type 'integer'", id="type"),
        pytest.param(replace(EXCHANGE, answer={"id": 2**31}), "is not a 'int32'", id="too large"),
        pytest.param(replace(EXCHANGE, answer={"status": "done"}), "'done' is not one of", id="enum"),
        pytest.param(replace(EXCHANGE, answer={"queueTime": "2026-11-23T06:00:00"}), "'date-time'", id="no zone"),
        pytest.param(replace(EXCHANGE, answer={"buildNubmer": "1"}), "'buildNubmer' was unexpected", id="property"),
        pytest.param(replace(EXCHANGE, answer={"definition": {"id": "1"}}), "answer.definition.id", id="nested"),
        pytest.param(replace(EXCHANGE, query={"expand": "all"}), "query expand is not described", id="query"),
        pytest.param(replace(EXCHANGE, method="PATCH", body={"status": 3}), "body.status", id="body"),
        pytest.param(replace(EXCHANGE, status=404, answer={"message": "gone"}), "'typeKey' is a required", id="error"),
        pytest.param(
            replace(EXCHANGE, path=EXCHANGE.path[:-2], answer=[]), "not a list wrapped as count and value", id="list"
        ),
        pytest.param(
            replace(
                EXCHANGE, path=EXCHANGE.path[:-2], query={"statusFilter": "done"}, answer={"count": 0, "value": []}
            ),
            "query statusFilter is not one of",
            id="query enum",
        ),
    ],
)
def test_swagger_check_bites(exchange: Exchange, problem: str) -> None:
    """What does not fit Microsoft's description is reported, and only that."""
    described = swagger.load()
    if described is None:
        pytest.skip("Microsoft's descriptions are not beside this repository (../shared/contracts/ado/swagger).")
    described(exchange)
    if problem:
        assert any(problem in found for found in described.problems), described.problems
    else:
        assert described.problems == []
