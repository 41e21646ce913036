"""What an image declares about itself, held against the candidate by test.sh."""

import asyncio
import subprocess

import pytest

from tests.pipelines.engine import BaseImage, Engine
from tests.pipelines.registry import Registry
from tests.pipelines.scripts import end_of, run_script, started
from tests.pipelines.world import IMAGE, LINE, World, until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def candidate(
    docker: Engine, registries: tuple[Registry, Registry], base: BaseImage, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What test.sh is told about a candidate that was built once for all these tests."""
    world = World(tmp_path_factory.mktemp("candidate"), docker, registries[1], base, "platform/expectations")
    digest = base.publish("first")
    built = {"IMAGE": IMAGE, "REPOSITORY": world.repository, "BASE_DIGEST": digest}
    more = {"BASE": f"{base.name}@{digest}", "BASE_NAME": f"{base.name}:{LINE}", "VERSION_TAG": f"{LINE}-1.0.0"}
    done = asyncio.run(run_script("build.sh", {**world.environment, **built, **more}, world.source))
    assert done.code == 0, done.lines
    return {**built, "DIGEST": done.outputs["digest"]}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"user": "0"}, f'{IMAGE} has user "1654", expected "0"'),
        ({"ports": ["80/tcp"]}, f'{IMAGE} has ports ["8080/tcp"], expected ["80/tcp"]'),
        (
            {"environment": {"APP_UID": "1"}},
            f'{IMAGE} has environment {{"APP_UID":"1654"}}, expected {{"APP_UID":"1"}}',
        ),
        ({"files": ["/etc/no"]}, f"{IMAGE} has no /etc/no"),
        ({"commands": ["true", "grep -q fabrikam /etc/platform"]}, "grep -q fabrikam /etc/platform"),
        ({"usr": "1654"}, "has keys that nothing reads: usr"),
        ({"application": {"name": "none"}}, "names the application none, which is not in pipelines/integration-tests"),
        ({"application": {"name": "ends-at-once"}}, "ended by itself with exit code 3; its log is above"),
    ],
    ids=["user", "ports", "environment", "files", "commands", "unknown key", "no application", "application ends"],
)
async def test_an_image_that_is_not_as_declared_fails_the_test(
    world: World, candidate: dict[str, str], changes: dict[str, object], says: str
) -> None:
    """Every kind of expectation is held against the candidate, and the last line says which was not met."""
    world.expect(**changes)
    staging = {"BUILD_ARTIFACTSTAGINGDIRECTORY": str(world.work)}

    done = await run_script("test.sh", {**world.environment, **candidate, **staging}, world.source)

    assert done.code == 1
    assert done.lines[-1].startswith("test: ")
    assert says in done.lines[-1]


async def test_a_candidate_built_from_another_base_than_approved_fails_the_test(
    world: World, candidate: dict[str, str]
) -> None:
    """The label has to carry the digest that was approved."""
    approved = "sha256:" + "0" * 64
    staging = {"BUILD_ARTIFACTSTAGINGDIRECTORY": str(world.work), "BASE_DIGEST": approved}

    done = await run_script("test.sh", {**world.environment, **candidate, **staging}, world.source)

    assert done.code == 1
    assert done.lines[-1] == f'test: {IMAGE} has base digest "{candidate["BASE_DIGEST"]}", expected "{approved}"'


async def test_a_test_that_is_cancelled_in_a_command_ends_soon_and_leaves_nothing(
    world: World, candidate: dict[str, str]
) -> None:
    """A command that does not care about signals cannot hold up the end, which an agent forces after ten seconds."""
    world.expect(files=[], commands=["sleep 300"])
    environment = {**world.environment, **candidate, "BUILD_ARTIFACTSTAGINGDIRECTORY": str(world.work)}

    async with started("test.sh", environment, world.source) as process:
        await until(lambda: any("sleep 300" in container for container in world.docker.containers()))
        process.terminate()
        done = await asyncio.wait_for(end_of(process), 9)

    assert (done.code, done.lines[-1]) == (143, "test: cancelled before it was done")
    assert world.docker.containers() == []


async def test_what_a_killed_test_left_is_removed_by_the_number_of_its_run(
    world: World, candidate: dict[str, str]
) -> None:
    """clean.sh removes the containers of one run and leaves those of others."""
    reference = f"{world.base.name}@{candidate['BASE_DIGEST']}"
    mine, other = (
        world.docker.docker("run", "--detach", "--label", f"shipshape.run={number}", reference, "sleep", "300")
        for number in ("77", "78")
    )

    done = await run_script("clean.sh", {**world.docker.environment, "BUILD_BUILDID": "77"})

    left = world.docker.docker("ps", "--all", "--quiet", "--no-trunc").split()
    world.docker.docker("rm", "--force", other)
    assert done.code == 0
    assert mine not in left
    assert other in left


@pytest.mark.parametrize("image", ["dotnet-runtime-8", "dotnet-aspnet-10"])
def test_the_images_from_net_8_on_run_as_the_user_of_their_base(world: World, base: BaseImage, image: str) -> None:
    """The real Dockerfile on a base like Microsoft's gives a numeric user, port 8080, and a folder that is root's."""
    folder = str(world.source / "pipelines/images" / image)
    base.publish("first")

    built = world.docker.docker("build", "--quiet", "--build-arg", f"BASE={base.name}:{LINE}", folder)
    user, ports = world.docker.docker(
        "inspect", "--format", "{{.Config.User}} {{json .Config.ExposedPorts}}", built
    ).split()

    assert (user, ports) == ("1654", '{"8080/tcp":{}}')
    assert world.docker.docker("run", "--rm", built, "stat", "-c", "%u %a", ".") == "0 755"


@pytest.mark.parametrize("image", ["dotnet-sdk-6", "dotnet-sdk-8", "dotnet-sdk-10"])
def test_an_sdk_image_without_a_checksum_stops_with_a_sentence(world: World, base: BaseImage, image: str) -> None:
    """Nothing is downloaded that nobody vouched for."""
    base.publish("first")
    folder = str(world.source / "pipelines/images" / image)

    with pytest.raises(subprocess.CalledProcessError) as failure:
        world.docker.docker("build", "--force-rm", "--build-arg", f"BASE={base.name}:{LINE}", folder)

    assert b"CREDENTIAL_PROVIDER_SHA256 is not set: write the sha256" in failure.value.stdout + failure.value.stderr
