"""Moving tags in ECR: the client against the local ECR."""

from collections.abc import AsyncIterator

import pytest

from bot.clients.ecr import EcrRepositories
from bot.clients.http import Limits, open_session
from bot.core.images import Digest
from bot.demo.ecr import LocalEcr
from bot.demo.image_builder import BuiltImage, make_image, make_index, make_layer
from bot.demo.registry import LocalRegistry
from bot.errors import NotFound, PeerRefused, PeerUnavailable
from tests.peers.registry import MemoryCache, platform_image

LIMITS = Limits(tries=1)
IMAGE = platform_image()
OLD, NEW = f"{IMAGE.tag}-1.0.0", f"{IMAGE.tag}-1.1.0"


def built(name: str, *, docker: bool = False) -> BuiltImage:
    return make_image([make_layer({"name": name})], labels={"name": name}, docker=docker)


@pytest.fixture
async def client(ecr: LocalEcr) -> AsyncIterator[EcrRepositories]:
    async with open_session(LIMITS) as session:
        client = EcrRepositories(session, MemoryCache(), limits=LIMITS)
        yield client
        await client.close()


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
@pytest.mark.parametrize("index", [False, True], ids=["image", "index"])
async def test_a_tag_moves_to_the_same_bytes(
    ecr: LocalEcr, registry: LocalRegistry, client: EcrRepositories, *, docker: bool, index: bool
) -> None:
    """The tag points to the very digest and media type that were asked for, in ECR and in what the registry keeps."""
    first = built("one", docker=docker)
    older = make_index([first], docker=docker) if index else first
    ecr.publish(IMAGE.repository, [OLD], older)
    newer = ecr.publish(IMAGE.repository, [NEW, "latest"], built("two"))
    await client.move_tag(IMAGE, "latest", older.digest)
    assert await client.tags(IMAGE) == {OLD: older.digest, NEW: newer, "latest": older.digest}
    kept = registry.storage.manifest(f"{IMAGE.registry_id}/{IMAGE.repository}", "latest")
    assert kept == older.manifest


async def test_a_moved_tag_outlives_a_restart(ecr: LocalEcr, client: EcrRepositories) -> None:
    """The local ECR is made from what the registry keeps, where the tag has moved as well."""
    older = ecr.publish(IMAGE.repository, [OLD], built("one"))
    ecr.publish(IMAGE.repository, [NEW, "latest"], built("two"))
    await client.move_tag(IMAGE, "latest", older)
    ecr.restore()
    assert (await client.tags(IMAGE))["latest"] == older


async def test_moving_twice_is_moving_once(ecr: LocalEcr, client: EcrRepositories) -> None:
    """A tag that points to the digest already is no error, also where tags are immutable."""
    older = ecr.publish(IMAGE.repository, [OLD, "latest"], built("one"))
    ecr.immutable.add(IMAGE.repository)
    await client.move_tag(IMAGE, "latest", older)
    assert (await client.tags(IMAGE))["latest"] == older


async def test_an_immutable_tag_is_told_apart(ecr: LocalEcr, client: EcrRepositories) -> None:
    """Where tags are immutable the reason says so, and nothing moves."""
    older = ecr.publish(IMAGE.repository, [OLD], built("one"))
    newer = ecr.publish(IMAGE.repository, [NEW, "latest"], built("two"))
    ecr.immutable.add(IMAGE.repository)
    with pytest.raises(PeerRefused, match=f"^the tags of {IMAGE.repository} are immutable in ECR in eu-west-1$"):
        await client.move_tag(IMAGE, "latest", older)
    assert (await client.tags(IMAGE))["latest"] == newer


async def test_a_digest_that_is_gone_is_not_found(ecr: LocalEcr, client: EcrRepositories) -> None:
    """What the repository does not have cannot get a tag."""
    ecr.publish(IMAGE.repository, [NEW], built("two"))
    with pytest.raises(NotFound):
        await client.move_tag(IMAGE, "latest", Digest("sha256:" + 64 * "a"))


@pytest.mark.parametrize(
    ("code", "kind"), [("AccessDeniedException", PeerRefused), ("ThrottlingException", PeerUnavailable)]
)
async def test_a_refusal_is_sorted(ecr: LocalEcr, client: EcrRepositories, code: str, kind: type[Exception]) -> None:
    """Missing permission is a refusal, an overloaded ECR is worth another try."""
    older = ecr.publish(IMAGE.repository, [OLD], built("one"))
    ecr.fail_next("PutImage", code)
    with pytest.raises(kind, match=f"PutImage of {IMAGE.repository}"):
        await client.move_tag(IMAGE, "latest", older)


async def test_a_missing_repository_has_no_tags(client: EcrRepositories) -> None:
    """No repository is no tags, and costs one call."""
    assert await client.tags(IMAGE) == {}
    assert client.requests == 1
