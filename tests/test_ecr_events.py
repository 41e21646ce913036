"""What the events of ECR say: the examples of Amazon's documentation, and what anybody else may send."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from bot.clients.ecr_events import EcrEvents, decode
from bot.core.hints import Outcome
from bot.core.repository_events import EventKind, RepositoryEvent
from bot.errors import Malformed, NotFound, PeerError, PeerRefused, PeerUnavailable

SAMPLES = Path(__file__).resolve().parents[2] / "shared" / "contracts" / "aws"
DIGEST = "sha256:7f5b2640fe6fb4f46592dfd3410c4a79dac4f89e4782432e0378abcd1234"
TAKEN = {
    "ecr-eventbridge.event-for-a-completed-image-push.json": (EventKind.PUSHED, "us-west-2", ("latest",)),
    "ecr-eventbridge.event-for-an-image-deletion.json": (EventKind.DELETED, "us-west-2", ("latest",)),
    "ecr-eventbridge.event-for-a-completed-image-scan-basic-scanning.json": (EventKind.SCANNED, "us-east-1", ()),
}
OTHERS = (
    "ecr-eventbridge.event-for-a-change-notification-on-a-resource-with-enhanced-scanning-e.json",
    "ecr-eventbridge.event-for-a-pull-through-cache-action.json",
    "image-scanning-enhanced.event-for-a-repository-scan-frequency-change.json",
    "image-scanning-enhanced.event-for-an-image-scan-finding-update-enhanced-scanning.json",
    "image-scanning-enhanced.event-for-an-initial-image-scan-enhanced-scanning.json",
)


def sample(name: str) -> str:
    if not SAMPLES.is_dir():
        pytest.skip("Amazon's examples are not at hand (../shared/contracts/aws)")
    return (SAMPLES / name).read_text("utf-8")


@pytest.mark.parametrize("name", TAKEN)
def test_examples_are_read(name: str) -> None:
    """Pushes, deletions and finished scans tell repository, digest and tags."""
    kind, region, tags = TAKEN[name]
    event = decode(sample(name))
    assert event is not None
    assert (event.kind, event.region, event.tags) == (kind, region, tags)
    assert (event.registry_id, event.repository, event.digest) == ("123456789012", "my-repository-name", DIGEST)
    assert event.id == json.loads(sample(name))["id"]


@pytest.mark.parametrize("name", OTHERS)
def test_other_examples_are_about_something_else(name: str) -> None:
    """Other kinds of events, and the patterns of rules, are none of ours."""
    assert decode(sample(name)) is None


def test_every_example_is_accounted_for() -> None:
    """No example of an event is left out of these tests."""
    sample(OTHERS[0])
    names = {path.name for path in SAMPLES.glob("*event*.json")}
    assert names == {*TAKEN, *OTHERS}


def inspector(**detail: Any) -> str:
    """The scan event of enhanced scanning, which names the repository by its ARN.

    https://docs.aws.amazon.com/inspector/latest/user/eventbridge-integration.html
    """
    arn = "arn:aws:ecr:eu-west-1:123456789012:repository/dotnet/sdk"
    return json.dumps(
        {
            "id": "1",
            "source": "aws.inspector2",
            "detail-type": "Inspector2 Scan",
            "account": "123456789012",
            "region": "eu-west-1",
            "detail": {"repository-name": arn, "image-digest": DIGEST, "image-tags": ["6.0"], **detail},
        }
    )


def test_enhanced_scans_are_read() -> None:
    """Inspector's event means the same repository."""
    event = decode(inspector())
    assert event is not None
    assert (event.kind, event.repository, event.tags) == (EventKind.SCANNED, "dotnet/sdk", ("6.0",))


@pytest.mark.parametrize(
    "body",
    [
        "",
        "no JSON",
        "[]",
        '"text"',
        "[" * 100_000,
        inspector(**{"image-digest": None}),
        inspector(**{"image-tags": "6.0"}),
        inspector(**{"image-tags": ["6.0\0"]}),
        inspector(**{"repository-name": "x" * 301}),
        json.dumps({"Type": "Notification", "Message": "no JSON"}),
        json.dumps({"source": "aws.ecr", "detail-type": "ECR Image Action", "detail": {}}),
    ],
)
def test_what_cannot_be_read_is_malformed(body: str) -> None:
    """Bytes that are no event, and events of ECR in another shape, are told from what is about something else."""
    with pytest.raises(Malformed):
        decode(body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=12), children, max_size=4),
    max_leaves=12,
)
documented = st.fixed_dictionaries(
    {"source": st.sampled_from(["aws.ecr", "aws.inspector2"]), "detail-type": st.sampled_from(["ECR Image Action"])},
    optional=dict.fromkeys(("id", "account", "region", "detail"), json_values),
)


@given((json_values | documented).map(json.dumps) | st.text())
def test_nothing_else_can_happen(body: str) -> None:
    """Whatever is in the queue is an event, none of ours, or malformed."""
    try:
        decode(body)
    except Malformed:
        return


# The queue's own answers


@asynccontextmanager
async def sqs(status: int, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EcrEvents]:
    """A queue that answers everything alike. https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html"""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(body, status=status, content_type="application/x-amz-json-1.0")

    app = web.Application()
    app.router.add_post("/", answer)
    async with TestServer(app) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", str(server.make_url("")))
        events = EcrEvents("https://sqs.eu-west-1.amazonaws.com/123456789012/shipshape-ecr-events")
        yield events
        await events.close()


async def ignore(_: RepositoryEvent) -> Outcome:
    return Outcome.IGNORED


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


@pytest.mark.parametrize(
    ("status", "body", "kind", "told"),
    [
        (
            403,
            {"__type": "com.amazonaws.sqs#AccessDenied", "message": "very-secret is not authorized"},
            PeerRefused,
            "SQS refused ReceiveMessage of shipshape-ecr-events (AccessDenied)",
        ),
        (
            400,
            {"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "no"},
            NotFound,
            "SQS has no queue shipshape-ecr-events",
        ),
        (
            503,
            {"__type": "ServiceUnavailable", "message": "no"},
            PeerUnavailable,
            "SQS could not do ReceiveMessage of shipshape-ecr-events (ServiceUnavailable)",
        ),
        (200, {"Messages": [{"MessageId": 7}]}, PeerUnavailable, "SQS could not be asked (ValidationError)"),
    ],
    ids=["no permission", "no queue", "unavailable", "nonsense"],
)
async def test_what_the_queue_answers(
    monkeypatch: pytest.MonkeyPatch,
    keys: None,
    status: int,
    body: dict[str, Any],
    kind: type[PeerError],
    told: str,
) -> None:
    """Refusals, outages and nonsense are told apart, and no text of Amazon's is repeated."""
    async with sqs(status, body, monkeypatch) as events:
        with pytest.raises(PeerError) as raised:
            await events.read(ignore, lambda outcome: None)
    assert type(raised.value) is kind
    assert str(raised.value) == told


async def test_without_credentials_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is told plainly."""
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    async with sqs(200, {}, monkeypatch) as events:
        with pytest.raises(PeerRefused, match="no AWS credentials were found"):
            await events.waiting()


async def test_a_message_whose_taking_breaks_comes_again(monkeypatch: pytest.MonkeyPatch, keys: None) -> None:
    """A mistake of ours loses no event: the message is not deleted, and the others are."""
    body = json.loads(inspector())
    messages = [
        {"MessageId": str(n), "ReceiptHandle": f"r{n}", "Body": json.dumps(body | {"id": str(n)})} for n in range(3)
    ]
    outcomes: list[str] = []

    async def take(event: RepositoryEvent) -> Outcome:
        if event.id == "1":
            raise RuntimeError("broken")
        return Outcome.TAKEN

    async with sqs(200, {"Messages": messages, "Successful": [], "Failed": []}, monkeypatch) as events:
        await events.read(take, outcomes.append)
    assert outcomes == ["taken", "later", "taken"]
