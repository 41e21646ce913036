"""push.sh against a registry that misbehaves: it finishes, or leaves everything as it was."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from bot.core.images import ImagePlatform
from bot.demo.image_builder import BuiltImage, make_image, make_index, make_layer
from bot.demo.registry import Failure, LocalRegistry, answering, hang
from tests.pipelines.programs import Unavailable, program
from tests.pipelines.scripts import Done, end_of, run_script, started
from tests.pipelines.world import until

REPOSITORY = "dotnet/runtime"
VERSION = "8.0-bookworm-slim-1.1.0"
OLD = make_image([make_layer({"etc/release": "old"})])
NEW = make_image([make_layer({"etc/release": "new"})])
BEFORE = {"8.0": OLD.digest, "8.0-bookworm-slim-1.0.0": OLD.digest, "latest": OLD.digest}
AFTER = {**BEFORE, "8.0": NEW.digest, "latest": NEW.digest, VERSION: NEW.digest}
REFUSED = answering(400, body=b'{"errors": [{"code": "TAG_INVALID", "message": "the repository is immutable"}]}')


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[LocalRegistry]:
    """It has version 1.0.0, and the candidate without a tag."""
    for name in ("curl", "jq"):
        try:
            program(name)
        except Unavailable as reason:
            pytest.skip(f"the scripts cannot run here: {reason}")
    async with LocalRegistry(tmp_path / "registry") as registry:
        for tag in BEFORE:
            registry.push(REPOSITORY, tag, OLD)
        registry.push(REPOSITORY, None, NEW)
        yield registry


def environment(registry: LocalRegistry, tmp_path: Path, image: BuiltImage = NEW) -> dict[str, str]:
    return {
        "IMAGE": "dotnet-runtime-8",
        "REGISTRY": registry.url.removeprefix("http://"),
        "REPOSITORY": REPOSITORY,
        "DIGEST": image.digest,
        "VERSION_TAG": VERSION,
        "EXTRA_TAGS": "8.0",
        "BASE_NAME": "mcr.microsoft.com/dotnet/runtime:8.0-bookworm-slim",
        "BASE_DIGEST": OLD.digest,
        "BUILD_ARTIFACTSTAGINGDIRECTORY": str(tmp_path / "a"),
    }


async def push(registry: LocalRegistry, tmp_path: Path, image: BuiltImage = NEW) -> Done:
    return await run_script("push.sh", environment(registry, tmp_path, image))


def removing_tags(tmp_path: Path) -> Failure:
    """What a registry does that can take a tag away; the local one cannot."""

    async def remove(request: web.Request, handler: Handler) -> web.StreamResponse:
        (tmp_path / "registry/repositories" / REPOSITORY / "_tags" / Path(request.path).name).unlink()
        return web.Response(status=202)

    return remove


async def test_tags_are_moved_in_order_and_latest_last(registry: LocalRegistry, tmp_path: Path) -> None:
    """The manifest is put under the version, the extra tag and latest, and nothing else is sent."""
    done = await push(registry, tmp_path)

    sent = [request.path.rpartition("/")[2] for request in registry.requests if request.method != "GET"]
    assert (done.code, sent) == (0, [VERSION, "8.0", "latest"])
    assert registry.storage.tags(REPOSITORY) == AFTER


async def test_an_index_is_promoted_as_it_is_and_sized_by_all_its_images(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    """An image for several platforms keeps its digest; its size counts every platform's layers and configuration."""
    arm = make_image([make_layer({"etc/release": "arm"})], platform=ImagePlatform.parse("linux/arm64"))
    index = make_index([NEW, arm])
    registry.push(REPOSITORY, None, index)

    done = await push(registry, tmp_path, index)

    assert done.code == 0
    assert registry.storage.tags(REPOSITORY)["latest"] == index.digest
    size = json.loads((tmp_path / "a/result.json").read_text())["size_bytes"]
    assert size == sum(len(blob.content) for child in (NEW, arm) for blob in child.blobs)


async def test_a_refused_tag_moves_everything_back(registry: LocalRegistry, tmp_path: Path) -> None:
    """When latest cannot be moved, the extra tag goes back, the version is removed, and the last line says why."""
    registry.fail_next("PUT", "latest", REFUSED)
    registry.fail_next("DELETE", "", removing_tags(tmp_path))

    done = await push(registry, tmp_path)

    host = registry.url.removeprefix("http://")
    assert done.code == 1
    assert done.lines[-3:] == [
        "Moved 8.0 back",
        f"Removed {VERSION} again",
        f"push: {host} refused the tag latest of {REPOSITORY} with 400. TAG_INVALID: the repository is immutable",
    ]
    assert registry.storage.tags(REPOSITORY) == BEFORE
    assert not (tmp_path / "a/result.json").exists()


async def test_a_version_that_cannot_be_removed_is_taken_up_by_the_repeat(
    registry: LocalRegistry, tmp_path: Path
) -> None:
    """A registry without deletion of tags keeps the version; the log says so, and the repeated stage finishes."""
    registry.fail_next("PUT", "latest", REFUSED)

    failed = await push(registry, tmp_path)
    left = registry.storage.tags(REPOSITORY)
    repeated = await push(registry, tmp_path)

    assert left == {**BEFORE, VERSION: NEW.digest}
    assert f"{VERSION} stays; running this stage again goes on from there" in failed.lines
    assert f"{VERSION} is there already" in repeated.lines
    assert repeated.code == 0
    assert registry.storage.tags(REPOSITORY) == AFTER


async def test_a_taken_version_stops_before_anything_is_moved(registry: LocalRegistry, tmp_path: Path) -> None:
    """A version tag with another image behind it is the end, before the first change."""
    registry.move(REPOSITORY, VERSION, OLD.digest)

    done = await push(registry, tmp_path)

    assert done.code == 1
    assert f"the version {VERSION} of {REPOSITORY} was taken meanwhile by {OLD.digest}" in done.lines[-1]
    assert registry.count("PUT") == 0


async def test_a_tag_that_reads_back_as_something_else_fails(registry: LocalRegistry, tmp_path: Path) -> None:
    """What a registry accepted is not believed until it is shown."""
    ignored = answering(201)
    registry.fail_next("PUT", "latest", ignored)

    done = await push(registry, tmp_path)

    assert done.code == 1
    assert done.lines[-1].endswith(
        f"shows latest of {REPOSITORY} as {OLD.digest} after the push, expected {NEW.digest}"
    )
    assert registry.storage.tags(REPOSITORY)["8.0"] == OLD.digest


async def test_what_passes_by_itself_is_tried_again(registry: LocalRegistry, tmp_path: Path) -> None:
    """One answer of 503 or 429 fails nothing."""
    registry.fail_next("GET", NEW.digest, answering(503))
    registry.fail_next("PUT", VERSION, answering(429, headers={"Retry-After": "1"}))

    done = await push(registry, tmp_path)

    assert (done.code, registry.storage.tags(REPOSITORY)) == (0, AFTER)


async def test_a_push_that_is_cancelled_in_the_middle_is_undone(registry: LocalRegistry, tmp_path: Path) -> None:
    """A signal between the version and latest moves everything back, and the last line says why it ended."""
    registry.fail_next("PUT", "latest", hang)
    registry.fail_next("DELETE", "", removing_tags(tmp_path))

    async with started("push.sh", environment(registry, tmp_path)) as process:
        await until(lambda: registry.count("PUT", "latest"))
        process.terminate()
        done = await end_of(process)

    assert (done.code, done.lines[-1]) == (143, "push: cancelled before it was done")
    assert registry.storage.tags(REPOSITORY) == BEFORE


async def test_a_candidate_that_is_gone_fails_with_its_digest(registry: LocalRegistry, tmp_path: Path) -> None:
    """A lifecycle rule may have been faster."""
    gone = make_image([make_layer({"etc/release": "gone"})])

    done = await push(registry, tmp_path, gone)

    assert done.code == 1
    assert done.lines[-1].endswith(f"no longer has the candidate {gone.digest} of {REPOSITORY}")


@pytest.mark.parametrize("name", ["REGISTRY", "DIGEST", "VERSION_TAG"])
async def test_a_variable_that_is_not_set_is_named(registry: LocalRegistry, tmp_path: Path, name: str) -> None:
    """The scripts say what they miss."""
    done = await run_script("push.sh", {**environment(registry, tmp_path), name: ""})

    assert (done.code, done.lines) == (1, [f"push: the variable {name} is not set"])
