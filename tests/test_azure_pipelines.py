"""The client of Azure Pipelines against a local Azure DevOps that speaks Microsoft's protocol."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from bot.clients.azure_pipelines import BATCH, AzurePipelines, useful_lines
from bot.core.images import PipelineReference
from bot.core.runs import Run, RunRequest, RunState, Stage, StageState
from bot.demo.azure_devops import AzureDevOps, Exchange, Failure, close_after, close_before, throttled
from bot.demo.runs import STAGES, AgentRun, Definition, StageFailed
from bot.errors import NotFound, PeerRefused, PeerUnavailable
from tests.peers import swagger

PROJECT = "platform-images"
SDK = PipelineReference(project=PROJECT, id=12)
ASPNET = PipelineReference(project=PROJECT, id=7)
DEFINITIONS = {
    12: Definition(name="dotnet-sdk-6", project=PROJECT),
    7: Definition(name="platform images", project=PROJECT),
}
PARAMETERS = {
    "image": "dotnet-sdk-6",
    "base": f"mcr.microsoft.com/dotnet/sdk@sha256:{'ab' * 32}",
    "version_tag": "6.0-bullseye-slim-1.4.0",
    "extra_tags": "6.0",
    "skip_update": "true",
    "request_id": "abcd2345",
    "reason": "",
}
MONDAY = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
DEADLINE_S = 10.0


class Agent:
    """Plays a run when told to; each stage ends with what is in `outcomes`: nothing for succeeded, else the error."""

    def __init__(self) -> None:
        self.may_begin = asyncio.Event()
        self.may_begin.set()
        self.outcomes: asyncio.Queue[str] = asyncio.Queue()
        self.lines = ["first", "last"]

    async def run(self, run: AgentRun) -> None:
        await self.may_begin.wait()
        for name in STAGES[STAGES.index(run.first_stage) :]:
            async with run.stage(name) as stage:
                await stage.log("\n".join(self.lines))
                if error := await self.outcomes.get():
                    raise StageFailed(error)

    def end_stages(self, *errors: str) -> None:
        for error in errors:
            self.outcomes.put_nowait(error)


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
def contract(azure_contract: swagger.Swagger | None) -> Iterator[list[Callable[[Exchange], None]]]:
    """Who is told of every exchange: Microsoft's description where it is at hand, whose problems fail the test."""
    yield [azure_contract] if azure_contract else []
    if azure_contract:
        problems, azure_contract.problems = azure_contract.problems, []
        assert problems == []


@pytest.fixture
async def azure(agent: Agent, contract: list[Callable[[Exchange], None]]) -> AsyncIterator[AzureDevOps]:
    async with AzureDevOps(agent=agent, definitions=DEFINITIONS, token="right", now=lambda: MONDAY) as server:
        server.on_exchange += contract
        yield server


@asynccontextmanager
async def connected(url: str, token: str = "right") -> AsyncIterator[AzurePipelines]:
    pipelines = AzurePipelines(url, token)
    try:
        yield pipelines
    finally:
        await pipelines.close()


@pytest.fixture
async def pipelines(azure: AzureDevOps) -> AsyncIterator[AzurePipelines]:
    async with connected(azure.url) as pipelines:
        yield pipelines


def request(pipeline: PipelineReference = SDK, **parameters: str) -> RunRequest:
    return RunRequest(pipeline=pipeline, parameters=PARAMETERS | parameters)


async def until_run(pipelines: AzurePipelines, run_id: int, state: RunState) -> Run:
    """The run, as soon as it is in that state."""
    async with asyncio.timeout(DEADLINE_S):
        while (run := (await pipelines.look(PROJECT, [run_id]))[0]).state is not state:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return run


async def until_stage(pipelines: AzurePipelines, run_id: int, number: int, state: StageState) -> list[Stage]:
    """All stages, as soon as one of them is in that state."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            stages = await pipelines.stages(PROJECT, run_id)
            if stages and stages[number].state is state:
                return stages
            await asyncio.sleep(0.01)


def sent(azure: AzureDevOps, method: str) -> list[str]:
    return [path for asked, path in azure.requests if asked == method]


def remembering(asked: list[web.Request]) -> Failure:
    """No failure: the request is kept and answered."""

    async def remember(request: web.Request, handler: Handler) -> web.StreamResponse:
        asked.append(request)
        return await handler(request)

    return remember


async def test_queued_run_has_the_parameters(pipelines: AzurePipelines, azure: AzureDevOps) -> None:
    """A run is queued with the template parameters, all strings, by API version 7.1, and told with its link."""
    asked: list[web.Request] = []
    azure.fail_next("POST", "/runs$", remembering(asked))
    run = await pipelines.queue(request())
    assert (await asked[0].json())["templateParameters"] == PARAMETERS
    assert "api-version=7.1" in asked[0].headers["Accept"]
    assert (run.number, run.project, run.state) == ("20261123.1-abcd2345", PROJECT, RunState.WAITING)
    assert (run.parameters, run.queued_at) == (PARAMETERS, MONDAY)
    assert run.url.startswith(f"{azure.url}/")
    assert run.url.endswith(f"buildId={run.id}")
    assert await pipelines.look(PROJECT, [run.id]) != []


async def test_calls_go_straight_to_their_place(pipelines: AzurePipelines, azure: AzureDevOps) -> None:
    """The first call asks once where things are; the next ones go straight there."""
    await pipelines.queue(request())
    await pipelines.stages(PROJECT, 1)
    await pipelines.active(SDK)
    assert len(sent(azure, "OPTIONS")) <= 1
    assert not any("ResourceAreas" in path for path in sent(azure, "GET"))


async def test_lost_answer_is_found_again(pipelines: AzurePipelines, azure: AzureDevOps) -> None:
    """A run that was queued although the connection broke is found by its request id; the POST was sent once."""
    azure.fail_next("POST", "/runs$", close_after)
    with pytest.raises(PeerUnavailable):
        await pipelines.queue(request())
    assert len(sent(azure, "POST")) == 1
    found = await pipelines.find(SDK, "abcd2345")
    assert found is not None
    assert (found.id, found.number, found.parameters["request_id"]) == (1, "20261123.1-abcd2345", "abcd2345")
    assert await pipelines.find(SDK, "zzzz9999") is None
    assert await pipelines.find(ASPNET, "abcd2345") is None


async def test_run_that_hides_its_parameters_is_found_by_its_name(
    pipelines: AzurePipelines, azure: AzureDevOps
) -> None:
    """Azure leaves the parameters out where the token may not see them; the run's name carries the id as well."""
    await pipelines.queue(request())

    async def without_parameters(request: web.Request, handler: Handler) -> web.StreamResponse:
        answer = await handler(request)
        assert isinstance(answer, web.Response)
        assert answer.text
        answer.text = answer.text.replace('"templateParameters"', '"hidden"')
        return answer

    azure.fail_next("GET", "/Builds$", without_parameters)
    found = await pipelines.find(SDK, "abcd2345")
    assert found is not None
    assert (found.number, found.parameters) == ("20261123.1-abcd2345", {})


async def test_active_runs_are_waiting_and_running_ones(pipelines: AzurePipelines, agent: Agent) -> None:
    """Queued and in-progress runs of that pipeline count as active; ended ones and those of others do not."""
    ended = await pipelines.queue(request())
    agent.end_stages("broken")
    await until_run(pipelines, ended.id, RunState.FAILED)
    running = await pipelines.queue(request())
    await until_run(pipelines, running.id, RunState.RUNNING)
    agent.may_begin.clear()
    waiting = await pipelines.queue(request())
    await pipelines.queue(request(ASPNET))
    found = {run.id: run.state for run in await pipelines.active(SDK)}
    assert found == {running.id: RunState.RUNNING, waiting.id: RunState.WAITING}


async def test_many_runs_are_looked_at_in_one_call(pipelines: AzurePipelines, azure: AzureDevOps) -> None:
    """One request for all runs of a project; more than fit into a URL are asked for in a second one."""
    runs = [await pipelines.queue(request()) for _ in range(3)]
    azure.requests.clear()
    found = await pipelines.look(PROJECT, [run.id for run in runs])
    assert {run.id for run in found} == {run.id for run in runs}
    assert len(azure.requests) == 1
    found = await pipelines.look(PROJECT, [*range(1000, 1000 + BATCH), runs[0].id])
    assert [run.id for run in found] == [runs[0].id]
    assert len(azure.requests) == 3
    assert await pipelines.look(PROJECT, []) == []
    assert len(azure.requests) == 3


async def test_deleted_run_is_missing(pipelines: AzurePipelines, azure: AzureDevOps, agent: Agent) -> None:
    """Who was deleted in Azure is left out, and the others are told."""
    kept, deleted = await pipelines.queue(request()), await pipelines.queue(request())
    agent.end_stages("", "", "", "", "", "")
    for run in (kept, deleted):
        await until_run(pipelines, run.id, RunState.SUCCEEDED)
    del azure.runs.all[deleted.id]
    assert [run.id for run in await pipelines.look(PROJECT, [kept.id, deleted.id])] == [kept.id]


async def test_run_tells_its_times_and_end(pipelines: AzurePipelines, agent: Agent) -> None:
    """A run that succeeded has its three times, in UTC."""
    run = await pipelines.queue(request())
    agent.end_stages("", "", "")
    ended = await until_run(pipelines, run.id, RunState.SUCCEEDED)
    assert (ended.queued_at, ended.started_at, ended.finished_at) == (MONDAY, MONDAY, MONDAY)


@pytest.mark.parametrize(
    ("status", "result", "state"),
    [
        ("postponed", None, RunState.WAITING),
        ("notStarted", None, RunState.WAITING),
        ("cancelling", None, RunState.RUNNING),
        ("completed", "succeeded", RunState.SUCCEEDED),
        ("completed", "partiallySucceeded", RunState.SUCCEEDED),
        ("completed", "failed", RunState.FAILED),
        ("completed", "canceled", RunState.CANCELLED),
        ("completed", "none", RunState.FAILED),
    ],
)
async def test_every_status_of_a_build(
    pipelines: AzurePipelines, azure: AzureDevOps, status: str, result: str | None, state: RunState
) -> None:
    """What a build's status and result mean for a run."""
    build = {"id": 5, "buildNumber": "20261123.1", "status": status, "result": result}

    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        return web.json_response({"count": 1, "value": [build]})

    azure.fail_next("GET", "/Builds$", answer)
    (run,) = await pipelines.look(PROJECT, [5])
    assert (run.state, run.url, run.parameters) == (state, "", {})


async def test_stages_before_during_and_after(pipelines: AzurePipelines, agent: Agent) -> None:
    """None before the run begins; then done, running and pending in the pipeline's order; then all done."""
    agent.may_begin.clear()
    run = await pipelines.queue(request())
    assert await pipelines.stages(PROJECT, run.id) == []
    agent.may_begin.set()
    agent.end_stages("")
    stages = await until_stage(pipelines, run.id, 1, StageState.RUNNING)
    assert [(stage.name, stage.state) for stage in stages] == [
        ("Build", StageState.SUCCEEDED),
        ("Test", StageState.RUNNING),
        ("Push", StageState.PENDING),
    ]
    assert (stages[0].started_at, stages[0].finished_at, stages[1].finished_at) == (MONDAY, MONDAY, None)
    agent.end_stages("", "")
    stages = await until_stage(pipelines, run.id, 2, StageState.SUCCEEDED)
    assert {stage.state for stage in stages} == {StageState.SUCCEEDED}
    assert {(stage.log_id, stage.errors) for stage in stages} == {(None, ())}


async def test_failed_stage_has_errors_and_a_log(pipelines: AzurePipelines, agent: Agent) -> None:
    """A failed stage names its errors, cleaned, and the log to read; what comes after it is skipped."""
    run = await pipelines.queue(request())
    agent.end_stages("", "\x1b[31mexpected 200, got 500\x1b[0m password=hunter2")
    await until_run(pipelines, run.id, RunState.FAILED)
    build, test, push = await pipelines.stages(PROJECT, run.id)
    assert [stage.state for stage in (build, test, push)] == [
        StageState.SUCCEEDED,
        StageState.FAILED,
        StageState.SKIPPED,
    ]
    assert test.errors == ("expected 200, got 500 password=***",)
    assert (test.ref_name, test.failed_step) == ("Test", "Run the integration application")
    assert test.log_id is not None
    assert (await pipelines.log_tail(PROJECT, run.id, test.log_id, 5)) == ["first", "last"]


async def test_retried_stage(pipelines: AzurePipelines, agent: Agent) -> None:
    """The failed stage of a run that is over is played again as its next attempt, and no other stage is."""
    run = await pipelines.queue(request())
    agent.end_stages("", "flaky")
    await until_run(pipelines, run.id, RunState.FAILED)
    with pytest.raises(PeerRefused, match="cannot be retried"):
        await pipelines.retry_stage(PROJECT, run.id, "Build")
    await pipelines.retry_stage(PROJECT, run.id, "Test")
    agent.end_stages("", "")
    await until_run(pipelines, run.id, RunState.SUCCEEDED)
    stages = await pipelines.stages(PROJECT, run.id)
    assert [(stage.attempt, stage.failed_step) for stage in stages] == [(1, ""), (2, ""), (2, "")]


async def test_cancelled_run_and_stage(pipelines: AzurePipelines, azure: AzureDevOps, agent: Agent) -> None:
    """Cancelling is asked for once, and ends the run and its stage as cancelled."""
    run = await pipelines.queue(request())
    agent.end_stages("")
    await until_stage(pipelines, run.id, 1, StageState.RUNNING)
    await pipelines.cancel(PROJECT, run.id)
    await until_run(pipelines, run.id, RunState.CANCELLED)
    stages = await pipelines.stages(PROJECT, run.id)
    assert [stage.state for stage in stages] == [StageState.SUCCEEDED, StageState.CANCELLED, StageState.SKIPPED]
    assert len(sent(azure, "PATCH")) == 1
    with pytest.raises(PeerRefused, match="already completed"):
        await pipelines.cancel(PROJECT, run.id)


async def test_tail_of_a_huge_log(pipelines: AzurePipelines, azure: AzureDevOps, agent: Agent) -> None:
    """Of a log with 200,000 lines only its end is asked for."""
    agent.lines = [f"line {number}" for number in range(200_000)]
    run = await pipelines.queue(request())
    agent.end_stages("broken")
    await until_run(pipelines, run.id, RunState.FAILED)
    log_id = (await pipelines.stages(PROJECT, run.id))[0].log_id
    assert log_id is not None
    asked: list[web.Request] = []
    azure.fail_next("GET", "/Logs/", remembering(asked))
    tail = await pipelines.log_tail(PROJECT, run.id, log_id, 3)
    assert tail == ["line 199997", "line 199998", "line 199999"]
    assert int(asked[0].query["startLine"]) > 199_000


async def test_log_that_is_not_there(pipelines: AzurePipelines) -> None:
    """A log, a run and a pipeline that do not exist are NotFound."""
    run = await pipelines.queue(request())
    nowhere = PipelineReference(project="nowhere", id=12)
    unknown: list[Callable[[], Awaitable[object]]] = [
        lambda: pipelines.log_tail(PROJECT, run.id, 99, 5),
        lambda: pipelines.log_tail(PROJECT, 99, 1, 5),
        lambda: pipelines.stages(PROJECT, 99),
        lambda: pipelines.cancel(PROJECT, 99),
        lambda: pipelines.queue(request(PipelineReference(project=PROJECT, id=99))),
        lambda: pipelines.queue(request(nowhere)),
        lambda: pipelines.active(nowhere),
    ]
    for ask in unknown:
        with pytest.raises(NotFound, match=r"^Azure DevOps says: |has no log"):
            await ask()


async def test_refused_parameters(pipelines: AzurePipelines) -> None:
    """A parameter that the pipeline does not declare is refused in Azure's own words."""
    with pytest.raises(PeerRefused, match="Unexpected parameter 'colour'") as refused:
        await pipelines.queue(request(colour="blue"))
    assert not isinstance(refused.value, NotFound)


async def test_wrong_token(azure: AzureDevOps) -> None:
    """A token that Azure does not take is a refusal, and is not in the message."""
    async with connected(azure.url, "hunter2") as stranger:
        for ask in (lambda: stranger.queue(request()), lambda: stranger.active(SDK)):
            with pytest.raises(PeerRefused, match="Azure DevOps refuses the token") as refused:
                await ask()
            assert "hunter2" not in str(refused.value)


ASKED: list[tuple[str, str, Callable[[AzurePipelines], Awaitable[object]]]] = [
    ("POST", "/runs$", lambda pipelines: pipelines.queue(request())),
    ("GET", "/Builds$", lambda pipelines: pipelines.active(SDK)),
    ("GET", "/Builds$", lambda pipelines: pipelines.look(PROJECT, [1])),
    ("GET", "/Timeline$", lambda pipelines: pipelines.stages(PROJECT, 1)),
    ("GET", "/Logs$", lambda pipelines: pipelines.log_tail(PROJECT, 1, 1, 5)),
    ("PATCH", "/Builds/1$", lambda pipelines: pipelines.cancel(PROJECT, 1)),
]


async def unreadable(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A sign-in page, as an expired token gets it."""
    return web.Response(text="<html>Sign in</html>", content_type="text/html", status=203)


async def cut_short(request: web.Request, handler: Handler) -> web.StreamResponse:
    """An answer whose connection breaks in the middle."""
    response = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"count": 1')
    if request.transport:
        request.transport.close()
    return response


@pytest.mark.parametrize(
    ("how", "told", "retry_after_s"),
    [
        pytest.param(500, "answered 500 (internal server error)", None, id="500"),
        pytest.param(503, "answered 503 (service unavailable)", None, id="503"),
        pytest.param(throttled(7), "answered 429 (too many requests)", 7, id="429"),
        pytest.param(close_before, "cannot be reached, or fails", None, id="closed"),
        pytest.param(cut_short, "cannot be reached, or fails", None, id="cut short"),
        pytest.param(unreadable, "answered nonsense", None, id="sign-in page"),
    ],
)
@pytest.mark.parametrize(("method", "path", "ask"), ASKED, ids=["queue", "active", "look", "stages", "log", "cancel"])
async def test_trouble_at_the_wire(
    pipelines: AzurePipelines,
    azure: AzureDevOps,
    method: str,
    path: str,
    ask: Callable[[AzurePipelines], Awaitable[object]],
    how: int | Failure,
    told: str,
    retry_after_s: float | None,
) -> None:
    """Whatever breaks is PeerUnavailable with its reason and pause, told after one request; the next one works."""
    await pipelines.queue(request())
    azure.requests.clear()
    azure.fail_next(method, path, how)
    with pytest.raises(PeerUnavailable, match=r"^Azure DevOps ") as failed:
        await ask(pipelines)
    assert told in str(failed.value)
    assert failed.value.retry_after_s == retry_after_s
    assert len(azure.requests) == 1
    assert len(await pipelines.look(PROJECT, [1])) == 1


async def test_queueing_is_never_repeated(pipelines: AzurePipelines, azure: AzureDevOps) -> None:
    """However it fails, one call to queue is one POST, so that no run is queued twice."""
    for how in (500, 502, 503, throttled(0), close_before, close_after, cut_short, unreadable):
        azure.requests.clear()
        azure.fail_next("POST", "/runs$", how)
        with pytest.raises(PeerUnavailable):
            await pipelines.queue(request())
        assert sent(azure, "POST") == [f"/contoso/{PROJECT}/_apis/pipelines/12/runs"]
    assert len(await pipelines.active(SDK)) == 1


async def test_server_that_is_not_there(azure: AzureDevOps) -> None:
    """A client that never reached the server says so at once, instead of after the library's own repeats."""
    async with connected("http://127.0.0.1:9/contoso") as lonely:
        begun = time.monotonic()
        with pytest.raises(PeerUnavailable, match="cannot be reached"):
            await lonely.active(SDK)
        assert time.monotonic() - begun < 2


async def test_another_organization(azure: AzureDevOps) -> None:
    """An organization that does not exist is NotFound."""
    async with connected(azure.url.replace("contoso", "fabrikam")) as stranger:
        with pytest.raises(NotFound, match="fabrikam does not exist"):
            await stranger.active(SDK)


async def test_nothing_blocks_the_loop(pipelines: AzurePipelines, azure: AzureDevOps) -> None:
    """While Azure takes its time, everything else goes on, also another question to Azure."""
    held, release = asyncio.Event(), asyncio.Event()

    async def slow(request: web.Request, handler: Handler) -> web.StreamResponse:
        held.set()
        await release.wait()
        return await handler(request)

    azure.fail_next("GET", "/Builds$", slow)
    asked = asyncio.create_task(pipelines.active(SDK))
    async with asyncio.timeout(DEADLINE_S):
        await held.wait()
        await pipelines.queue(request())
        assert not asked.done()
        release.set()
        await asked


# Logs


def test_log_lines_are_cleaned() -> None:
    """Time stamps, escape codes, control characters and what is only for the agent are taken out; empty lines too."""
    stamp = "2026-11-23T06:00:00.1234567Z "
    text = [
        f"\ufeff{stamp}##[section]Starting: Test",
        f"{stamp}##[group]Setup",
        f"{stamp}=====================",
        f"{stamp}\x1b[31;1mred\x1b[0m and \x1b]8;;https://contoso.com\x07linked\x1b]8;;\x07",
        stamp,
        f"{stamp}bell\x07 and \x9b1mC1\x00",
        f"{stamp}two\r\nlines",
        "without a stamp 2026-11-23T06:00:00Z",
    ]
    assert useful_lines(text, 10) == [
        "red and linked",
        "bell and 1mC1",
        "two",
        "lines",
        "without a stamp 2026-11-23T06:00:00Z",
    ]


def test_log_ends_with_its_last_error() -> None:
    """What comes after the last error, such as clean-up, is left out; no lines are none."""
    text = ["a", "b", "##[error]Bash exited with code '1'.", "##[section]Finishing: Test", "clean up"]
    assert useful_lines(text, 2) == ["b", "Bash exited with code '1'."]
    assert useful_lines(text, 0) == []
    assert useful_lines([], 5) == []


@pytest.mark.parametrize(
    ("line", "cleaned"),
    [
        ("key AKIAIOSFODNN7EXAMPLE is used", "key *** is used"),
        ("ASIAIOSFODNN7EXAMPLE", "***"),
        (f"pat {'a1B2' * 19}AZDOc3D4 of a person", "pat *** of a person"),
        (f"pat {'abcdefgh234567' * 3}abcdefghij", "pat ***"),
        (f"sha256:{'0123456789abcdef' * 4}", f"sha256:{'0123456789abcdef' * 4}"),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer ***"),
        ("authorization: basic OnNlY3JldA==", "authorization: basic ***"),
        ("PASSWORD=hunter2 next", "PASSWORD=*** next"),
        ("password: hunter2", "password: ***"),
        ("password = hunter2", "password = ***"),
        ("--password hunter2 --verbose", "--password *** --verbose"),
        ("DB_PASSWORD='correct horse battery' next", "DB_PASSWORD=*** next"),
        ('{"password": "correct horse", "user": "sa"}', '{"password": ***, "user": "sa"}'),
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG", "aws_secret_access_key = ***"),
        ("AccountName=contoso;AccountKey=abc123==;", "AccountName=contoso;AccountKey=***"),
        ("x-api-key: abc", "x-api-key: ***"),
        ("client_secret=abc", "client_secret=***"),
        ("clone https://bot:ghp_123456@github.com/contoso/x", "clone https://***@github.com/contoso/x"),
        (f"eyJ{'a' * 20}.eyJ{'b' * 20}.{'c' * 20} rest", "*** rest"),
        ("Basic authentication failed for the password of sa", "Basic authentication failed for the password of sa"),
        ("GET https://contoso.com:8080/a@b expected 200", "GET https://contoso.com:8080/a@b expected 200"),
    ],
)
def test_secrets_are_masked(line: str, cleaned: str) -> None:
    """What looks like a secret is not shown; what only talks about one is."""
    assert useful_lines([line], 1) == [cleaned]


@pytest.mark.parametrize("part", ["eyJ-", "password=", "://a:", "x", "bearer ", "\x1b]", "secret=token="])
def test_long_lines_cost_little(part: str) -> None:
    """A line of a megabyte is cut before it is searched."""
    begun = time.monotonic()
    (line,) = useful_lines([part * 250_000], 1) or [""]
    assert len(line) <= 300
    assert time.monotonic() - begun < 0.5
