"""Build, test and push, by the stages and scripts that run on Azure."""

import pytest

from tests.pipelines.registry import Registry, registry
from tests.pipelines.world import IMAGE, LINE, World, last_line, log_of, outcome, until

pytestmark = pytest.mark.e2e
LABEL = "org.opencontainers.image."
PASSED = {"Build": "succeeded", "Test": "succeeded", "Push": "succeeded"}
STOPPED_AT_BUILD = {"Build": "failed", "Test": "skipped", "Push": "skipped"}
STOPPED_AT_TEST = {"Build": "succeeded", "Test": "failed", "Push": "skipped"}
STOPPED_AT_PUSH = {"Build": "succeeded", "Test": "succeeded", "Push": "failed"}


async def test_an_image_is_built_tested_and_promoted_and_again_when_the_base_moved(world: World) -> None:
    """One digest gets the version, the extra tag and latest, says what it was built from, and gives way to the next."""
    first_base = world.base.publish("first")
    async with world.azure() as azure:
        first = await azure.finish(world.parameters(first_base, "1.0.0"))
        tags = world.ecr.versions(world.repository)
        second_base = world.base.publish("second")
        second = await azure.finish(world.parameters(second_base, "1.1.0"))
        results = [azure.result(run) for run in (first, second)]

    assert outcome(first) == outcome(second) == PASSED
    old, new = results[0]["digest"], results[1]["digest"]
    assert tags == {f"{LINE}-1.0.0": old, "8.0": old, "latest": old}
    assert world.ecr.versions(world.repository) == {
        f"{LINE}-1.0.0": old,
        f"{LINE}-1.1.0": new,
        "8.0": new,
        "latest": new,
    }
    assert [result["base_digest"] for result in results] == [first_base, second_base]

    labels = world.ecr.labels(world.repository, "latest")
    assert labels.pop(f"{LABEL}created").endswith("Z")
    assert labels == {
        f"{LABEL}base.digest": second_base,
        f"{LABEL}base.name": f"{world.base.name}:{world.base.tag}",
        f"{LABEL}revision": "9dd4b2f0c1a24e7f8b6d5c4a3b2e1f0d9c8b7a65",
        f"{LABEL}source": "https://dev.azure.com/contoso/platform-images/_git/shipshape",
        f"{LABEL}title": IMAGE,
        f"{LABEL}version": f"{LINE}-1.1.0",
    }
    durations = results[1].pop("durations_s")
    assert durations.keys() == {"build", "test", "push"}
    assert all(isinstance(seconds, int) for seconds in durations.values())
    assert results[1].pop("size_bytes") > 500_000
    assert results[1] == {
        "image": IMAGE,
        "registry": world.ecr.host,
        "repository": world.repository,
        "digest": new,
        "version_tag": f"{LINE}-1.1.0",
        "tags": [f"{LINE}-1.1.0", "8.0", "latest"],
        "base_name": f"{world.base.name}:{world.base.tag}",
        "base_digest": second_base,
        "scan": None,
        "request_id": "r7k2",
    }


async def test_a_dockerfile_that_does_not_build_fails_the_build_and_is_repeated_when_repaired(world: World) -> None:
    """The reason is the last line, nothing is pushed, and the same version is built by the next run."""
    world.expect_little()
    dockerfile = (world.source / f"pipelines/images/{IMAGE}/Dockerfile").read_text()
    world.write(f"images/{IMAGE}/Dockerfile", dockerfile.replace("RUN echo", "RUN apk add"))
    digest = world.base.publish("first")
    async with world.azure() as azure:
        failed = await azure.finish(world.parameters(digest, "1.0.0"))
        assert world.ecr.tags(world.repository) == {}
        world.write(f"images/{IMAGE}/Dockerfile", dockerfile)
        repeated = await azure.finish(world.parameters(digest, "1.0.0"))

    assert outcome(failed) == STOPPED_AT_BUILD
    assert last_line(failed, "Build").startswith(
        f"build: the Dockerfile of {IMAGE} does not build on {world.base.name}:"
    )
    assert failed.current("Build").error == last_line(failed, "Build")
    assert outcome(repeated) == PASSED


@pytest.mark.parametrize(
    ("application", "says"),
    [
        (
            "answers-500",
            f"test: the application on {IMAGE} answered 500 to GET /, expected 200 and 'x'; its log is above",
        ),
        ("never-answers", f"test: the application on {IMAGE} did not answer GET / within 2 s; its log is above"),
    ],
)
async def test_an_application_that_does_not_work_on_the_image_fails_the_test(
    world: World, application: str, says: str
) -> None:
    """The answer is the last line, the application's log is kept, no tag moves, and nothing is left running."""
    world.expect(application={"name": application, "answer": "x", "timeout_s": 2}, commands=[], files=[])
    async with world.azure() as azure:
        run = await azure.finish(world.parameters(world.base.publish("first"), "1.0.0"))
        kept = (azure.agent.artifact(run.id, "test-logs-1") / "application.log").read_text()

    assert outcome(run) == STOPPED_AT_TEST
    assert last_line(run, "Test") == run.current("Test").error == says
    assert kept.strip()
    assert kept.strip() in "\n".join(log_of(run, "Test"))
    assert world.ecr.versions(world.repository) == {}


async def test_a_registry_that_refuses_the_push_fails_the_build_and_is_repeated(world: World) -> None:
    """A registry in maintenance takes nothing; when it is back, the same run is made again."""
    world.expect_little()
    digest = world.base.publish("first")
    with registry(world.work / "closed", storage=world.ecr.storage, read_only=True) as closed:
        async with world.azure(**Registry(closed.host, closed.storage).environment) as azure:
            refused = await azure.finish(world.parameters(digest, "1.0.0"))
    async with world.azure() as azure:
        repeated = await azure.finish(world.parameters(digest, "1.0.0"))

    assert outcome(refused) == STOPPED_AT_BUILD
    says = f"build: {closed.host} did not take the candidate candidate-1-1 of {world.repository}"
    assert last_line(refused, "Build") == says
    assert outcome(repeated) == PASSED


async def test_a_wrong_password_is_told_and_never_shown(world: World) -> None:
    """The last line names the registry and the user; the password is in no line."""
    digest = world.base.publish("first")
    async with world.azure(REGISTRY_PASSWORD="not-the-password") as azure:
        run = await azure.finish(world.parameters(digest, "1.0.0"))

    assert last_line(run, "Build") == f"build: {world.ecr.host} refused the login of AWS"
    assert "not-the-password" not in "\n".join(log_of(run, "Build"))


async def test_a_version_that_was_taken_meanwhile_is_not_moved(world: World) -> None:
    """Somebody else's image under the version tag stays, no other tag moves, and the next version can be built."""
    world.expect_little()
    digest = world.base.publish("first")
    async with world.azure() as azure:
        run = azure.queue(world.parameters(digest, "1.0.0"))
        await until(lambda: run.current("Test").started)
        taken = world.ecr.take(world.repository, f"{LINE}-1.0.0", like="candidate-1-1")
        await azure.end_of(run)
        after = world.ecr.versions(world.repository)
        again = await azure.finish(world.parameters(digest, "1.0.0"))
        next_one = await azure.finish(world.parameters(digest, "1.1.0"))

    assert outcome(run) == STOPPED_AT_PUSH
    assert last_line(run, "Push") == (
        f"push: the version {LINE}-1.0.0 of {world.repository} was taken meanwhile by {taken}; "
        "run the pipeline again to get the next one"
    )
    assert after == {f"{LINE}-1.0.0": taken}
    assert outcome(again) == STOPPED_AT_BUILD
    assert "exists already" in last_line(again, "Build")
    assert outcome(next_one) == PASSED


async def test_a_run_that_is_cancelled_in_the_build_leaves_nothing(world: World) -> None:
    """The build ends at once, with it the container it ran in; no candidate is pushed, and the next run works."""
    world.expect_little()
    dockerfile = (world.source / f"pipelines/images/{IMAGE}/Dockerfile").read_text()
    world.write(f"images/{IMAGE}/Dockerfile", dockerfile.replace("RUN echo", "RUN sleep 300 && echo"))
    digest = world.base.publish("first")
    async with world.azure() as azure:
        run = azure.queue(world.parameters(digest, "1.0.0"))
        await until(lambda: any("RUN sleep 300" in line for line in run.current("Build").lines))
        azure.runs.cancel(run)
        await until(lambda: run.result, within_s=8)
        assert world.ecr.tags(world.repository) == {}
        world.write(f"images/{IMAGE}/Dockerfile", dockerfile)
        repeated = await azure.finish(world.parameters(digest, "1.0.0"))

    assert run.result == "canceled"
    assert "##[error]build: cancelled before it was done" in log_of(run, "Build")
    assert outcome(repeated) == PASSED


async def test_a_run_that_is_cancelled_in_the_test_leaves_no_container(world: World) -> None:
    """The application under test is removed, no tag moves, and the next run works."""
    world.expect_little()
    world.expect(application={"name": "never-answers", "timeout_s": 300})
    digest = world.base.publish("first")
    async with world.azure() as azure:
        run = azure.queue(world.parameters(digest, "1.0.0"))
        await until(lambda: any("shipshape-test:" in container for container in world.docker.containers()))
        azure.runs.cancel(run)
        await until(lambda: run.result, within_s=8)
        assert world.docker.containers() == []
        world.expect(application={"name": "shell-web", "answer": "shell-web"})
        repeated = await azure.finish(world.parameters(digest, "1.0.0"))

    assert run.result == "canceled"
    assert "##[error]test: cancelled before it was done" in log_of(run, "Test")
    assert outcome(repeated) == PASSED


async def test_a_push_that_is_run_again_promotes_the_same_candidate(world: World) -> None:
    """The Push stage alone can be retried: what was tested is what is promoted, and nothing is built again."""
    world.expect_little()
    digest = world.base.publish("first")
    async with world.azure() as azure:
        run = azure.queue(world.parameters(digest, "1.0.0"))
        azure.runs.cancel_stage(run, "Push")
        await azure.end_of(run)
        assert world.ecr.versions(world.repository) == {}
        azure.runs.retry_stage(run, "Push", force=False)
        await azure.end_of(run)

    assert outcome(run) == PASSED
    assert len(run.stages["Build"]) == 1
    candidate = world.ecr.tags(world.repository)["candidate-1-1"]
    assert set(world.ecr.versions(world.repository).values()) == {candidate}
