"""`shipshape hooks`, as a program of its own against the local Azure DevOps."""

from datetime import UTC, datetime
from typing import Any

import pytest

from bot.clients.azure_hooks import EVENTS
from bot.demo.azure_documents import project_id
from bot.demo.azure_hooks import Subscription
from bot.demo.world import LocalWorld
from tests.test_cli import Environment, bare, env, shipshape

__all__ = ["bare", "env"]  # fixtures

URL = "https://shipshape.contoso.com/api/hooks/azure-devops"
SECRET = "correct horse battery staple"
PROJECT = project_id("platform-images")
BUILD = "build.complete"


@pytest.fixture
def hook_env(env: Environment) -> Environment:
    return {**env, "SHIPSHAPE_HOOK_SECRET": SECRET}


def put(world: LocalWorld, name: str, **changes: Any) -> Subscription:
    """A subscription that somebody made by hand."""
    asked = {
        "publisherId": "tfs",
        "eventType": BUILD,
        "resourceVersion": "1.0",
        "consumerId": "webHooks",
        "consumerActionId": "httpRequest",
        "publisherInputs": {"projectId": PROJECT, "buildStatus": "Failed"},
        "consumerInputs": {"url": URL},
    }
    now = datetime(2026, 11, 1, tzinfo=UTC)
    status = changes.pop("status", "enabled")
    made = Subscription(id=name, asked=asked | changes, created=now, modified=now, status=status)
    world.azure.hooks.subscriptions[name] = made
    return made


def events(world: LocalWorld) -> list[str]:
    return sorted(each.asked["eventType"] for each in world.azure.hooks.subscriptions.values())


async def test_install_twice_is_install_once(world: LocalWorld, hook_env: Environment) -> None:
    """Every event is subscribed to once, with the password, which is never printed."""
    first = await shipshape("hooks", "install", "--url", URL, env=hook_env)
    ids = set(world.azure.hooks.subscriptions)
    second = await shipshape("hooks", "install", "--url", URL, env=hook_env)
    assert (first.code, first.out) == (0, "platform-images: 6 subscriptions added, 0 renewed\n")
    assert (second.code, second.out) == (0, "platform-images: 0 subscriptions added, 6 renewed\n")
    assert events(world) == sorted(EVENTS)
    assert set(world.azure.hooks.subscriptions) == ids
    for each in world.azure.hooks.subscriptions.values():
        assert each.inputs["url"] == URL
        assert each.inputs["basicAuthPassword"] == SECRET
    assert SECRET not in first.out + first.err + second.out + second.err


async def test_install_mends_what_is_there(world: LocalWorld, hook_env: Environment) -> None:
    """Another scheme, a filter, an old version, a switched off and a doubled one are set right; others stay."""
    mended = put(world, "00000000-0000-4000-8000-000000000001", status="disabledBySystem")
    mended.asked["consumerInputs"] = {"url": URL.replace("https", "http") + "/"}
    put(world, "00000000-0000-4000-8000-000000000002")
    elsewhere = {"url": "https://other.contoso.com/api/hooks/azure-devops"}
    foreign = put(world, "00000000-0000-4000-8000-000000000003", consumerInputs=elsewhere)
    before = dict(foreign.asked)
    done = await shipshape("hooks", "install", "--url", URL, env=hook_env)
    assert done.out == "platform-images: 5 subscriptions added, 1 renewed, 1 removed that were there twice\n"
    assert (mended.status, mended.inputs["url"], mended.asked["resourceVersion"]) == ("enabled", URL, "2.0")
    assert mended.asked["publisherInputs"] == {"projectId": PROJECT}
    assert world.azure.hooks.subscriptions[foreign.id].asked == before
    assert len(world.azure.hooks.subscriptions) == len(EVENTS) + 1


async def test_status_tells_what_is_missing(world: LocalWorld, hook_env: Environment) -> None:
    """Each event of each project has a line with how its subscription stands; all enabled is exit 0."""
    put(world, "00000000-0000-4000-8000-000000000001", status="onProbation")
    before = await shipshape("hooks", "status", "--url", URL, env=hook_env)
    assert before.code == 1
    assert "onProbation        platform-images: build.complete" in before.out
    assert before.out.count("missing            platform-images: ms.vss-") == 5
    await shipshape("hooks", "install", "--url", URL, env=hook_env)
    after = await shipshape("hooks", "status", "--url", URL, env=hook_env)
    assert (after.code, after.out.count("enabled ")) == (0, 6)


async def test_remove_takes_ours_alone(world: LocalWorld, hook_env: Environment) -> None:
    """Subscriptions to another address stay, also when they look like ours."""
    elsewhere = {"url": "https://other.contoso.com/api/hooks/azure-devops"}
    foreign = put(world, "00000000-0000-4000-8000-000000000003", consumerInputs=elsewhere)
    await shipshape("hooks", "install", "--url", URL, env=hook_env)
    done = await shipshape("hooks", "remove", "--url", URL, env=hook_env)
    assert (done.code, done.out) == (0, "6 subscriptions removed\n")
    assert list(world.azure.hooks.subscriptions) == [foreign.id]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://shipshape.contoso.com/api/hooks/azure-devops", "https://"),
        ("https://127.0.0.1/api/hooks/azure-devops", "this machine"),
        ("https://localhost/api/hooks/azure-devops", "this machine"),
        ("https://shipshape.contoso.com/", "has to end with /api/hooks/azure-devops"),
        ("https://user:secret@shipshape.contoso.com/api/hooks/azure-devops", "has to end with"),
        ("shipshape.contoso.com", "https://"),
    ],
)
async def test_addresses_that_cannot_work_are_refused(
    world: LocalWorld, hook_env: Environment, url: str, told: str
) -> None:
    """Azure would take them and fail later, so they are refused at once, with the reason."""
    done = await shipshape("hooks", "install", "--url", url, env=hook_env)
    assert done.code == 1
    assert told in done.err
    assert world.azure.requests == []


async def test_what_is_missing_is_named(world: LocalWorld, env: Environment, hook_env: Environment) -> None:
    """Without a password or without Azure DevOps nothing can be installed, and the key is named."""
    done = await shipshape("hooks", "install", "--url", URL, env=env)
    assert (done.code, "SHIPSHAPE_HOOK_SECRET: is missing" in done.err) == (1, True)
    done = await shipshape("hooks", "install", "--url", URL, env={**hook_env, "SHIPSHAPE_AZURE_DEVOPS_URL": ""})
    assert (done.code, "SHIPSHAPE_AZURE_DEVOPS_URL: is missing" in done.err) == (1, True)


async def test_what_azure_refuses_is_told(world: LocalWorld, hook_env: Environment) -> None:
    """A token that may not see subscriptions is one sentence."""
    world.azure.fail_next("GET", "/hooks/subscriptions", 403)
    done = await shipshape("hooks", "install", "--url", URL, env=hook_env)
    assert done.code == 1
    assert done.err.startswith("shipshape: Azure DevOps says: ")
