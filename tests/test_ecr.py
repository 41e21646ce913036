"""The ECR client against moto, and against a scripted server for what moto cannot do."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bot.clients.documents import MANIFEST_TYPES
from bot.clients.ecr import EcrRepositories
from bot.clients.http import Limits, open_session
from bot.core.images import Version
from bot.demo.ecr import LocalEcr
from bot.demo.image_builder import BuiltImage, make_image, make_index, make_layer
from bot.demo.registry import LocalRegistry, answering
from bot.errors import NotFound, PeerError, PeerRefused, PeerUnavailable
from tests.peers.registry import (
    ACCOUNT,
    LINUX_ARM64,
    REGION,
    MemoryCache,
    Pauses,
    ScriptedServer,
    platform_image,
    scripted_server,
)

LIMITS = Limits(tries=1)
IMAGE = platform_image()
LINE = IMAGE.tag
SECRET = "AQoDYXdzEPT4-session-token"


def built(name: str) -> BuiltImage:
    """An image that differs from others with another name."""
    return make_image([make_layer({"name": name})], labels={"name": name})


@pytest.fixture
async def scripted(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedServer]:
    """An ECR that answers from a script."""
    async with scripted_server() as server:
        use_endpoint(monkeypatch, server.url)
        yield server


@pytest.fixture
def cache() -> MemoryCache:
    return MemoryCache()


@pytest.fixture
async def client(cache: MemoryCache) -> AsyncIterator[EcrRepositories]:
    async with open_session(LIMITS) as session:
        client = EcrRepositories(session, cache, limits=LIMITS, sleep=Pauses())
        yield client
        await client.close()


def use_endpoint(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRET)


# The newest version


async def test_versions_are_compared_as_numbers(ecr: LocalEcr, client: EcrRepositories) -> None:
    """1.10.0 is newer than 1.9.0, whatever was pushed last."""
    newest = ecr.publish(IMAGE.repository, [f"{LINE}-1.10.0"], built("ten"))
    ecr.publish(IMAGE.repository, [f"{LINE}-1.9.0", "latest"], built("nine"))
    published = await client.newest(IMAGE)
    assert published is not None
    assert (published.version, published.version_tag) == (Version(1, 10, 0), f"{LINE}-1.10.0")
    assert published.digest == newest


async def test_one_digest_may_have_several_versions(ecr: LocalEcr, client: EcrRepositories) -> None:
    """A digest that was promoted twice counts by its highest version, and has all its tags."""
    tags = [f"{LINE}-1.2.0", f"{LINE}-1.10.0", f"{LINE}-1.9.0", "6.0"]
    ecr.publish(IMAGE.repository, tags, built("one"))
    published = await client.newest(IMAGE)
    assert published is not None
    assert published.version == Version(1, 10, 0)
    assert published.tags == tuple(sorted(tags))


@pytest.mark.parametrize(
    "tag",
    [
        f"{LINE}-arm64v8-9.0.0",
        f"x{LINE}-9.0.0",
        f"{LINE}-9.0",
        f"{LINE}-9.0.0.0",
        f"{LINE}-09.0.0",
        f"{LINE}-9.0.0-rc1",
        f"{LINE}-v9.0.0",
        f"{LINE}-9.0.0_1",
        "9.0.0",
        LINE,
    ],
)
async def test_other_tags_are_no_versions(ecr: LocalEcr, client: EcrRepositories, tag: str) -> None:
    """Sibling lines and tags that only look like versions do not count."""
    ecr.publish(IMAGE.repository, [f"{LINE}-1.0.0"], built("ours"))
    ecr.publish(IMAGE.repository, [tag], built("other"))
    published = await client.newest(IMAGE)
    assert published is not None
    assert published.version == Version(1, 0, 0)


async def test_sibling_lines_of_one_repository_are_kept_apart(ecr: LocalEcr, client: EcrRepositories) -> None:
    """Lines whose names begin alike each have their own newest version."""
    sibling = platform_image(tag=f"{LINE}-arm64v8")
    ecr.publish(IMAGE.repository, [f"{LINE}-1.1.0"], built("ours"))
    ecr.publish(IMAGE.repository, [f"{LINE}-arm64v8-2.0.0"], built("sibling"))
    ours, theirs = await client.newest(IMAGE), await client.newest(sibling)
    assert ours is not None
    assert theirs is not None
    assert (ours.version, theirs.version) == (Version(1, 1, 0), Version(2, 0, 0))


async def test_a_missing_repository_is_a_first_build(ecr: LocalEcr, client: EcrRepositories) -> None:
    """Without the repository there is no newest version, and nothing to find."""
    assert await client.newest(IMAGE) is None
    assert await client.find(IMAGE, f"{LINE}-1.0.0") is None


async def test_an_empty_repository_is_a_first_build(ecr: LocalEcr, client: EcrRepositories) -> None:
    """Without a version of the line there is no newest version."""
    ecr.create_repository(IMAGE.repository)
    assert await client.newest(IMAGE) is None
    ecr.publish(IMAGE.repository, ["latest", "candidate-42"], built("candidate"))
    assert await client.newest(IMAGE) is None


async def test_size_and_time_of_push_are_told(ecr: LocalEcr, client: EcrRepositories) -> None:
    """Size is that of the compressed layers in bytes, the time is in UTC."""
    image = built("one")
    ecr.publish(IMAGE.repository, [f"{LINE}-1.0.0"], image)
    published = await client.newest(IMAGE)
    assert published is not None
    assert published.size == sum(len(layer.blob.content) for layer in image.layers)
    assert published.pushed_at is not None
    assert published.pushed_at.tzinfo is UTC
    assert abs(published.pushed_at - datetime.now(UTC)) < timedelta(minutes=1)


async def test_an_index_may_have_no_size(ecr: LocalEcr, client: EcrRepositories) -> None:
    """The size of an image for several platforms is not known, which is not zero."""
    index = make_index([built("amd"), make_image([make_layer({"name": "arm"})], platform=LINUX_ARM64)])
    ecr.publish(IMAGE.repository, [f"{LINE}-1.0.0"], index)
    published = await client.newest(IMAGE)
    assert published is not None
    assert (published.digest, published.size) == (index.digest, None)


@pytest.mark.parametrize("size", [{}, {"imageSizeInBytes": 0}], ids=["missing", "zero"])
async def test_an_answer_may_have_any_order_and_no_size(
    scripted: ScriptedServer, client: EcrRepositories, size: dict[str, int]
) -> None:
    """Tags come in no order that helps, and zero bytes are no size."""
    tags = [f"{LINE}-1.9.0", f"{LINE}-1.10.0", f"{LINE}-1.2.0"]
    scripted.answer(200, {"imageDetails": [{"imageDigest": built("one").digest, "imageTags": tags, **size}]})
    published = await client.newest(IMAGE)
    assert published is not None
    assert (published.version, published.size, published.pushed_at) == (Version(1, 10, 0), None, None)


async def test_pages_are_followed(scripted: ScriptedServer, client: EcrRepositories) -> None:
    """A repository of several thousand images is read to its end; untagged images are not asked for."""
    scripted.answer(200, {"imageDetails": [detail(f"{LINE}-1.0.0")], "nextToken": "page-2"})
    scripted.answer(200, {"imageDetails": [detail(f"{LINE}-1.1.0")]})
    published = await client.newest(IMAGE)
    assert published is not None
    assert published.version == Version(1, 1, 0)
    common = {"registryId": ACCOUNT, "repositoryName": IMAGE.repository}
    request = {**common, "filter": {"tagStatus": "TAGGED"}, "maxResults": 1000}
    assert scripted.bodies == [request, {**request, "nextToken": "page-2"}]
    assert client.requests == 2


async def test_lines_of_one_repository_share_a_listing(ecr: LocalEcr, client: EcrRepositories) -> None:
    """A check of several images in one repository lists it once."""
    images = [platform_image(tag=f"{number}.0-bullseye-slim") for number in (6, 8, 10)]
    for image in images:
        ecr.publish(image.repository, [f"{image.tag}-1.0.0"], built(image.tag))
    found = await asyncio.gather(*(client.newest(image) for image in images))
    assert [published.version_tag for published in found if published] == [f"{image.tag}-1.0.0" for image in images]
    assert client.requests == 1


async def test_a_listing_under_way_is_not_joined(scripted: ScriptedServer, client: EcrRepositories) -> None:
    """Who asks after a push sees it, even while an older listing has not come back yet."""
    scripted.answer(200, {"imageDetails": [detail(f"{LINE}-1.0.0")]})
    scripted.answer(200, {"imageDetails": [detail(f"{LINE}-1.1.0")]})
    arrived = scripted.hold_next()
    before = asyncio.create_task(client.newest(IMAGE))
    await asyncio.wait_for(arrived.wait(), 5)
    after = asyncio.create_task(client.newest(IMAGE))
    published = await asyncio.wait_for(after, 5)
    scripted.go_on()
    older = await before
    assert published is not None
    assert published.version == Version(1, 1, 0)
    assert older is not None
    assert older.version == Version(1, 0, 0)


# One version


async def test_a_version_is_found_by_its_tag(ecr: LocalEcr, client: EcrRepositories) -> None:
    """A version tag leads to its digest, whatever other versions there are."""
    assert await client.newest(IMAGE) is None
    digest = ecr.publish(IMAGE.repository, [f"{LINE}-1.0.0", f"{LINE}-1.1.0"], built("one"))
    found = await client.find(IMAGE, f"{LINE}-1.0.0")
    assert found is not None
    assert (found.version, found.version_tag, found.digest) == (Version(1, 0, 0), f"{LINE}-1.0.0", digest)
    assert await client.find(IMAGE, f"{LINE}-1.2.0") is None


async def test_a_tag_of_another_line_is_not_asked_for(ecr: LocalEcr, client: EcrRepositories) -> None:
    """What is no version tag of the line is not there."""
    ecr.publish(IMAGE.repository, ["latest"], built("one"))
    assert await client.find(IMAGE, "latest") is None
    assert client.requests == 0


# Documents


async def test_documents_are_read_by_digest(
    ecr: LocalEcr, registry: LocalRegistry, client: EcrRepositories, cache: MemoryCache
) -> None:
    """Index, child and configuration are found by digest, once for ever."""
    image = built("one")
    index = make_index([image])
    ecr.publish(IMAGE.repository, [f"{LINE}-1.0.0"], index)
    for _ in range(2):
        contents = client.contents(IMAGE)
        children = (await contents.manifest(index.digest)).children
        assert children == {image.platform: image.digest}
        config = (await contents.manifest(image.digest)).config
        assert config is not None
        assert (await contents.config(config)).labels == {"name": "one"}
    # Two manifests, the address of the configuration, and the configuration itself.
    assert client.requests == 4
    assert registry.count("GET") == 1
    assert len(cache.documents) == 3


async def test_all_kinds_of_manifest_are_accepted(scripted: ScriptedServer, client: EcrRepositories) -> None:
    """ECR is told that it need not convert anything."""
    image = built("one")
    scripted.answer(200, {"images": [{"imageManifest": image.manifest.content.decode()}], "failures": []})
    await client.contents(IMAGE).manifest(image.digest)
    assert scripted.bodies[0]["acceptedMediaTypes"] == list(MANIFEST_TYPES)
    assert scripted.bodies[0]["registryId"] == ACCOUNT


async def test_missing_documents_are_said_to_be_missing(ecr: LocalEcr, client: EcrRepositories) -> None:
    """A digest that ECR does not have is named."""
    absent = built("absent")
    ecr.publish(IMAGE.repository, ["latest"], built("one"))
    with pytest.raises(NotFound, match=f"^ECR in {REGION} has no dotnet/sdk@{absent.digest.short}$"):
        await client.contents(IMAGE).manifest(absent.digest)
    with pytest.raises(NotFound, match=f"^ECR in {REGION} has no such layer in dotnet/sdk$"):
        await client.contents(IMAGE).config(absent.digest)


async def test_a_manifest_with_another_digest_is_refused(scripted: ScriptedServer, client: EcrRepositories) -> None:
    """ECR's answer has to be what the digest names."""
    scripted.answer(200, {"images": [{"imageManifest": "{}"}], "failures": []})
    with pytest.raises(PeerUnavailable, match=rf"^ECR in {REGION} answered nonsense \(.* have another digest\)$"):
        await client.contents(IMAGE).manifest(built("one").digest)


@pytest.mark.parametrize(("code", "kind"), [("KmsError", PeerRefused), ("UpstreamTooManyRequests", PeerUnavailable)])
async def test_a_manifest_may_be_withheld(
    scripted: ScriptedServer, client: EcrRepositories, code: str, kind: type[PeerError]
) -> None:
    """Why ECR left an image out decides whether to try again."""
    scripted.answer(200, {"images": [], "failures": [{"failureCode": code, "failureReason": SECRET}]})
    with pytest.raises(kind, match=rf"did not give dotnet/sdk@\w+ \({code}\)$"):
        await client.contents(IMAGE).manifest(built("one").digest)


async def test_a_signed_address_is_used_as_it_is(
    registry: LocalRegistry, scripted: ScriptedServer, client: EcrRepositories
) -> None:
    """A signature may hold escaped characters, which have to arrive escaped."""
    image = built("one")
    registry.push(IMAGE.repository, None, image)
    assert image.config is not None
    address = f"{registry.url}/v2/{IMAGE.repository}/blobs/{image.config.digest}?X-Amz-Signature=a%2Fb%2Bc%3D"
    scripted.answer(200, {"downloadUrl": address, "layerDigest": image.config.digest})
    assert (await client.contents(IMAGE).config(image.config.digest)).labels == {"name": "one"}
    assert registry.requests[0].query == "X-Amz-Signature=a%2Fb%2Bc%3D"


async def test_a_blob_store_that_fails_does_not_show_its_address(
    ecr: LocalEcr, registry: LocalRegistry, client: EcrRepositories
) -> None:
    """The address of a configuration is signed, so it is in no message."""
    image = built("one")
    ecr.publish(IMAGE.repository, ["latest"], image)
    registry.fail_next("GET", "/blobs/", answering(403))
    assert image.config is not None
    with pytest.raises(PeerUnavailable, match=rf"^ECR in {REGION} answered 403 \(forbidden\) for a configuration$"):
        await client.contents(IMAGE).config(image.config.digest)


# Failures


@pytest.mark.parametrize(
    ("status", "code", "kind", "reason"),
    [
        (400, "AccessDeniedException", PeerRefused, "refused DescribeImages of dotnet/sdk"),
        (403, "InvalidSignatureException", PeerRefused, "refused DescribeImages of dotnet/sdk"),
        (400, "ExpiredTokenException", PeerRefused, "refused DescribeImages of dotnet/sdk"),
        (400, "ThrottlingException", PeerUnavailable, "could not do DescribeImages of dotnet/sdk"),
        (500, "ServerException", PeerUnavailable, "could not do DescribeImages of dotnet/sdk"),
    ],
)
async def test_what_ecr_says_is_sorted_by_what_to_do(
    scripted: ScriptedServer, client: EcrRepositories, status: int, code: str, kind: type[PeerError], reason: str
) -> None:
    """Errors say what was refused and why, and never repeat ECR's text, which may hold the session token."""
    text = f"The Canonical String for this request should have been x-amz-security-token:{SECRET}"
    scripted.answer(status, {"__type": code, "message": text})
    with pytest.raises(kind, match=rf"^ECR in {REGION} {reason} \({code}\)$") as caught:
        await client.newest(IMAGE)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "answer",
    [
        "<html>",
        "[]",
        "null",
        "{}",
        '{"imageDetails": 5}',
        '{"imageDetails": [5]}',
        '{"imageDetails": [{}]}',
        '{"imageDetails": [{"imageDigest": "x"}]}',
        json.dumps({"imageDetails": [{"imageDigest": built("one").digest, "imageTags": [7]}]}),
        json.dumps({"imageDetails": [{"imageDigest": built("one").digest, "imagePushedAt": "soon"}]}),
    ],
)
async def test_nonsense_is_a_reason(scripted: ScriptedServer, client: EcrRepositories, answer: str) -> None:
    """An answer that is not ECR's is a reason, not a crash."""
    scripted.answer_text(200, answer)
    with pytest.raises(PeerUnavailable, match=rf"^ECR in {REGION} answered nonsense \(\w+\)$"):
        await client.newest(IMAGE)


async def test_an_unusable_endpoint_is_a_refusal(client: EcrRepositories, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of boto3 that cannot work are the operator's to mend."""
    use_endpoint(monkeypatch, "not a URL")
    with pytest.raises(PeerRefused, match=f"^ECR in {REGION} cannot be asked: ValueError in AWS settings$"):
        await client.newest(IMAGE)


async def test_a_slow_ecr_is_a_reason(scripted: ScriptedServer) -> None:
    """After the time limit the call is given up."""
    limits = Limits(total_s=0.2, tries=1)
    scripted.answer(200, {"imageDetails": []})
    scripted.hold_next()
    async with open_session(limits) as session:
        client = EcrRepositories(session, MemoryCache(), limits=limits)
        with pytest.raises(PeerUnavailable, match=f"^ECR in {REGION} did not answer in time$"):
            await client.newest(IMAGE)
        await client.close()
    scripted.go_on()


async def test_a_throttled_call_is_repeated(scripted: ScriptedServer) -> None:
    """boto3 repeats what ECR was too busy for, up to the number of tries."""
    limits = Limits(tries=3)
    scripted.answer(400, {"__type": "ThrottlingException", "message": "Rate exceeded"})
    scripted.answer(200, {"imageDetails": [detail(f"{LINE}-1.0.0")]})
    async with open_session(limits) as session:
        client = EcrRepositories(session, MemoryCache(), limits=limits)
        assert await client.newest(IMAGE) is not None
        await client.close()
    assert len(scripted.bodies) == 2


async def test_an_ecr_that_is_down_is_a_reason(client: EcrRepositories, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused connection is a reason."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    use_endpoint(monkeypatch, f"http://127.0.0.1:{port}")
    with pytest.raises(PeerUnavailable, match=f"^ECR in {REGION} could not be reached$"):
        await client.newest(IMAGE)


async def test_missing_credentials_are_said_to_be_missing(
    ecr: LocalEcr, client: EcrRepositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials nothing is asked."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(PeerRefused, match="no AWS credentials were found"):
        await client.newest(IMAGE)


async def test_another_account_is_another_registry(ecr: LocalEcr, client: EcrRepositories) -> None:
    """The account of the catalog is asked for, not that of the credentials."""
    ecr.publish(IMAGE.repository, [f"{LINE}-1.0.0"], built("one"))
    assert await client.newest(replace(IMAGE, registry_id="210987654321")) is None


# The local ECR itself


async def test_the_local_ecr_comes_back_after_a_restart(
    ecr: LocalEcr, registry: LocalRegistry, client: EcrRepositories
) -> None:
    """What was published is still there with its time when the process starts again."""
    digest = ecr.publish(IMAGE.repository, [f"{LINE}-1.0.0"], built("one"))
    before = await client.newest(IMAGE)
    ecr.restore()
    assert await client.newest(IMAGE) == before
    assert before is not None
    assert before.digest == digest


async def test_a_tag_that_moves_leaves_its_old_image(ecr: LocalEcr, client: EcrRepositories) -> None:
    """As in ECR, an image that loses a tag stays, and the tag is on one image only."""
    first = ecr.publish(IMAGE.repository, [f"{LINE}-1.0.0", "latest"], built("one"))
    ecr.publish(IMAGE.repository, [f"{LINE}-1.1.0", "latest"], built("two"))
    older = await client.find(IMAGE, f"{LINE}-1.0.0")
    assert older is not None
    assert (older.digest, older.tags) == (first, (f"{LINE}-1.0.0",))


def detail(tag: str) -> dict[str, Any]:
    return {
        "imageDigest": built(tag).digest,
        "imageTags": [tag],
        "imageSizeInBytes": 10,
        "imagePushedAt": 1_700_000_000,
    }
