"""Whether an image is stale, found out from a real registry and a local ECR through the clients that the bot uses."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.clients.ecr import EcrRepositories
from bot.clients.http import Limits, open_session
from bot.clients.oci import OciRegistry
from bot.core.checks import Evidence, Status, Verdict
from bot.core.images import ImagePlatform, PlatformImage, Version, next_version
from bot.core.staleness import judge
from bot.demo.ecr import LocalEcr
from bot.demo.image_builder import LINUX_AMD64, BuiltImage, Layer, make_image, make_index, make_layer
from bot.demo.registry import LocalRegistry, answering
from tests.peers.registry import BASE, LINUX_ARM64, WINDOWS, MemoryCache, Pauses, platform_image

DIGEST, NAME = "org.opencontainers.image.base.digest", "org.opencontainers.image.base.name"
OURS = make_layer({"opt/contoso/ca.pem": "certificate\n"})


@dataclass(frozen=True, slots=True)
class World:
    """MCR and ECR, and the clients that ask them."""

    registry: LocalRegistry
    ecr: LocalEcr
    mcr: OciRegistry
    repositories: EcrRepositories

    def move_base(self, base: BuiltImage) -> BuiltImage:
        """Let the base tag point to another image."""
        assert BASE.tag is not None
        self.registry.push(BASE.repository, BASE.tag, base)
        return base

    def publish(self, built: BuiltImage, version: str = "1.0.0") -> None:
        """Push a version of the platform image, as the pipeline does."""
        image = platform_image()
        self.ecr.publish(image.repository, [f"{image.tag}-{version}"], built)

    async def check(self, *platforms: ImagePlatform) -> Verdict:
        """What a check finds for the image, built for these platforms."""
        image = platform_image(platforms=platforms or (LINUX_AMD64,))
        current = await self.mcr.current(BASE)
        published = await self.repositories.newest(image)
        return await judge(
            image, str(BASE), current, self.mcr.contents(BASE), self.repositories.contents(image), published
        )


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    limits, cache = Limits(), MemoryCache()
    async with LocalRegistry(tmp_path) as registry, LocalEcr(registry) as ecr, open_session(limits) as session:
        for name, value in ecr.environment().items():
            monkeypatch.setenv(name, value)
        mcr = OciRegistry(session, cache, mirrors={BASE.registry: registry.url}, limits=limits, sleep=Pauses())
        repositories = EcrRepositories(session, cache, limits=limits, sleep=Pauses())
        yield World(registry, ecr, mcr, repositories)
        await repositories.close()


def base(amd64: str, arm64: str | None = None, windows: str | None = None) -> BuiltImage:
    """A base for several platforms. Each text is one build: equal texts give the same child."""
    builds = {LINUX_AMD64: amd64, LINUX_ARM64: arm64, WINDOWS: windows}
    return make_index([make_image([layer_of(text)], platform=where) for where, text in builds.items() if text])


def layer_of(text: str) -> Layer:
    return make_layer({"etc/os-release": text})


def built_from(recorded: str | None, *below: Layer, platform: ImagePlatform = LINUX_AMD64) -> BuiltImage:
    """A platform image whose label names its base."""
    labels = {DIGEST: recorded, NAME: str(BASE)} if recorded else {"maintainer": "contoso"}
    return make_image([*(below or [layer_of("a")]), OURS], labels=labels, platform=platform)


def said(verdict: Verdict) -> tuple[Status, Evidence]:
    return verdict.status, verdict.evidence


# The recorded digest


async def test_an_image_built_from_the_current_base_is_fresh(world: World) -> None:
    """The label is the index digest that the tag still has: no document of the base is read."""
    current = world.move_base(base("a"))
    world.publish(built_from(current.digest))
    verdict = await world.check()
    assert said(verdict) == (Status.FRESH, Evidence.LABEL)
    assert verdict.recorded_digest == verdict.current_digest == current.digest
    assert verdict.version_tag == "6.0-bullseye-slim-1.0.0"
    assert world.registry.count("GET", "^/v2/dotnet/sdk/") == 0


async def test_an_image_is_stale_when_its_platform_moved(world: World) -> None:
    """The child of the image's platform is another one now."""
    old = world.move_base(base("a", "x"))
    world.publish(built_from(old.digest))
    new = world.move_base(base("b", "x"))
    verdict = await world.check()
    assert said(verdict) == (Status.STALE, Evidence.LABEL)
    assert (verdict.recorded_digest, verdict.current_digest) == (old.digest, new.digest)
    assert verdict.reason == "the base moved for linux/amd64"


@pytest.mark.parametrize("after", [("a", "y", "w"), ("a", "x", "v"), ("a", None, None)], ids=str)
async def test_a_move_for_other_platforms_is_no_update(world: World, after: tuple[str, str | None, str | None]) -> None:
    """An index that moved because of another architecture or Windows leaves the image fresh."""
    old = world.move_base(base("a", "x", "w"))
    world.publish(built_from(old.digest))
    new = world.move_base(base(*after))
    verdict = await world.check()
    assert said(verdict) == (Status.FRESH, Evidence.LABEL)
    assert verdict.current_digest == new.digest != old.digest
    assert "other platforms only" in verdict.reason


@pytest.mark.parametrize(("now", "status"), [("a", Status.FRESH), ("b", Status.STALE)])
async def test_the_recorded_digest_may_be_the_child(world: World, now: str, status: Status) -> None:
    """Builders may record the digest of the platform's manifest instead of the index's."""
    old = world.move_base(base("a", "x"))
    world.publish(built_from(old.children[0].digest))
    world.move_base(base(now, "y"))
    verdict = await world.check()
    assert said(verdict) == (status, Evidence.LABEL)


async def test_a_base_without_an_index_is_compared_as_it_is(world: World) -> None:
    """A base for a single platform has no children to compare."""
    old = world.move_base(make_image([layer_of("a")]))
    world.publish(built_from(old.digest))
    assert said(await world.check()) == (Status.FRESH, Evidence.LABEL)
    world.move_base(make_image([layer_of("b")]))
    assert said(await world.check()) == (Status.STALE, Evidence.LABEL)


async def test_an_annotation_is_as_good_as_a_label(world: World) -> None:
    """The annotation of the manifest is read first, and spares reading the configuration."""
    old = world.move_base(base("a"))
    world.publish(make_image([layer_of("a"), OURS], annotations={DIGEST: old.digest}))
    assert said(await world.check()) == (Status.FRESH, Evidence.ANNOTATION)
    assert world.registry.count("GET", "/blobs/") == 0
    world.move_base(base("b"))
    assert said(await world.check()) == (Status.STALE, Evidence.ANNOTATION)


async def test_the_newest_version_is_the_one_that_counts(world: World) -> None:
    """1.10.0 was built from the current base; 1.9.0 was not, and was pushed later."""
    old, new = world.move_base(base("a")), world.move_base(base("b"))
    world.publish(built_from(new.digest), "1.10.0")
    world.publish(built_from(old.digest), "1.9.0")
    verdict = await world.check()
    assert (verdict.status, verdict.version_tag) == (Status.FRESH, "6.0-bullseye-slim-1.10.0")


# Several platforms


@pytest.mark.parametrize(("after", "status"), [(("a", "y"), Status.STALE), (("a", "x", "v"), Status.FRESH)], ids=str)
async def test_every_platform_of_the_image_counts(world: World, after: tuple[str, ...], status: Status) -> None:
    """An image for two platforms is stale when one of them moved."""
    old = world.move_base(base("a", "x", "w"))
    arm = built_from(old.digest, layer_of("x"), platform=LINUX_ARM64)
    world.publish(make_index([built_from(old.digest), arm]))
    world.move_base(base(*after))
    verdict = await world.check(LINUX_AMD64, LINUX_ARM64)
    assert said(verdict) == (status, Evidence.LABEL)


async def test_annotations_of_an_index_and_of_its_children_are_read(world: World) -> None:
    """The base may be noted on the index or on the child."""
    old = world.move_base(base("a"))
    child = make_image([layer_of("a"), OURS], annotations={DIGEST: old.digest})
    world.publish(make_index([make_image([layer_of("a"), OURS])], annotations={DIGEST: old.digest}), "1.0.0")
    assert said(await world.check()) == (Status.FRESH, Evidence.ANNOTATION)
    world.publish(make_index([child]), "1.1.0")
    assert said(await world.check()) == (Status.FRESH, Evidence.ANNOTATION)


async def test_a_platform_the_base_lost_is_unknown(world: World) -> None:
    """A base that no longer has the platform cannot be compared; the reason says what it has."""
    old = world.move_base(base("a", "x"))
    world.publish(make_index([built_from(old.digest), built_from(old.digest, platform=LINUX_ARM64)]))
    world.move_base(base("a", None, "w"))
    verdict = await world.check(LINUX_AMD64, LINUX_ARM64)
    assert verdict.status is Status.UNKNOWN
    assert "the base has no linux/arm64" in verdict.reason
    assert "linux/amd64, windows/amd64" in verdict.reason


async def test_a_platform_the_image_lacks_is_unknown(world: World) -> None:
    """The catalog asks for a platform that was never built."""
    current = world.move_base(base("a", "x"))
    world.publish(make_index([built_from(current.digest)]))
    verdict = await world.check(LINUX_AMD64, LINUX_ARM64)
    assert verdict.status is Status.UNKNOWN
    assert "the image in ECR has no linux/arm64" in verdict.reason


# Layers


@pytest.mark.parametrize(("now", "status"), [("a", Status.FRESH), ("b", Status.STALE)])
async def test_without_a_record_the_layers_decide(world: World, now: str, status: Status) -> None:
    """An image without label or annotation is fresh while it starts with the base's layers."""
    world.publish(built_from(None, layer_of("a")))
    world.move_base(base(now))
    verdict = await world.check()
    assert said(verdict) == (status, Evidence.LAYERS)
    assert verdict.recorded_digest is None


async def test_layers_have_to_be_the_first_ones(world: World) -> None:
    """The base's layers somewhere above do not make an image fresh."""
    world.publish(make_image([OURS, layer_of("a")]))
    world.move_base(base("a"))
    assert said(await world.check()) == (Status.STALE, Evidence.LAYERS)


async def test_an_image_shorter_than_the_base_is_stale(world: World) -> None:
    """Only some of the base's layers are not the base."""
    world.publish(make_image([layer_of("a")]))
    world.move_base(make_image([layer_of("a"), layer_of("b")]))
    assert said(await world.check()) == (Status.STALE, Evidence.LAYERS)


@pytest.mark.parametrize("recorded", ["", "sha256:abc", "latest"])
async def test_a_record_that_is_no_digest_is_no_record(world: World, recorded: str) -> None:
    """A label that cannot be a digest leaves the decision to the layers."""
    world.publish(make_image([layer_of("a"), OURS], labels={DIGEST: recorded}))
    world.move_base(base("a"))
    assert said(await world.check()) == (Status.FRESH, Evidence.LAYERS)


@pytest.mark.parametrize(("now", "status"), [("a", Status.FRESH), ("b", Status.STALE)])
async def test_when_the_old_base_is_gone_the_layers_decide(world: World, now: str, status: Status) -> None:
    """A registry may drop old digests, which says nothing about the image."""
    gone = base("a", "never pushed")
    world.publish(built_from(gone.digest, layer_of("a")))
    world.move_base(base(now))
    assert said(await world.check()) == (status, Evidence.LAYERS)


async def test_a_base_without_layers_is_unknown(world: World) -> None:
    """Nothing is the beginning of everything, so it proves nothing."""
    world.publish(built_from(None))
    world.move_base(make_image([]))
    verdict = await world.check()
    assert said(verdict) == (Status.UNKNOWN, Evidence.NONE)


# Not knowing


async def test_nothing_published_is_a_first_build(world: World) -> None:
    """Neither fresh nor stale: there is no version yet."""
    current = world.move_base(base("a"))
    verdict = await world.check()
    assert (verdict.status, verdict.current_digest) == (Status.UNBUILT, current.digest)
    assert verdict.reason == "no version of 6.0-bullseye-slim is in dotnet/sdk yet"


async def test_a_base_that_cannot_be_read_is_unknown(world: World) -> None:
    """The tag moved, but its index cannot be had: nobody knows whether the platform moved."""
    old = world.move_base(base("a"))
    world.publish(built_from(old.digest))
    world.move_base(base("b"))
    world.registry.fail_next("GET", "^/v2/dotnet/sdk/manifests/", answering(429), times=3)
    verdict = await world.check()
    assert verdict.status is Status.UNKNOWN
    assert verdict.reason == "mcr.microsoft.com answered 429 (too many requests)"


async def test_an_old_base_that_cannot_be_read_is_unknown(world: World) -> None:
    """An outage while the old base is read is not the same as an old base that is gone."""
    old = world.move_base(base("a"))
    world.publish(built_from(old.digest))
    world.move_base(base("b"))
    world.registry.fail_next("GET", f"manifests/{old.digest}", answering(503), times=3)
    assert (await world.check()).status is Status.UNKNOWN


async def test_an_image_that_cannot_be_read_is_unknown(world: World) -> None:
    """The configuration in ECR cannot be had, so neither label nor layers are known."""
    current = world.move_base(base("a"))
    world.publish(built_from(current.digest))
    world.registry.fail_next("GET", "/123456789012/dotnet/sdk/blobs/", answering(500), times=3)
    verdict = await world.check()
    assert verdict.status is Status.UNKNOWN
    assert verdict.reason == "ECR in eu-west-1 answered 500 (internal server error)"


async def test_one_platform_that_is_stale_outweighs_one_that_is_unknown(world: World) -> None:
    """A known update is not hidden by something that cannot be read."""
    old = world.move_base(base("a", "x"))
    world.publish(make_index([built_from(old.digest)]))
    world.move_base(base("b", "x"))
    assert (await world.check(LINUX_AMD64, LINUX_ARM64)).status is Status.STALE


# Versions

NUMBERS = st.integers(0, 999_999_999)
VERSIONS = st.builds(Version, NUMBERS, NUMBERS, NUMBERS)
IMAGE: PlatformImage = platform_image()


@given(VERSIONS, VERSIONS)
def test_version_tags_order_as_numbers(one: Version, other: Version) -> None:
    """Reading two version tags back gives versions that compare like their numbers."""
    first, second = IMAGE.version_of(IMAGE.version_tag(one)), IMAGE.version_of(IMAGE.version_tag(other))
    assert first is not None
    assert second is not None
    numbers = [(version.major, version.minor, version.patch) for version in (one, other)]
    assert (first < second) == (numbers[0] < numbers[1])
    assert (first == second) == (numbers[0] == numbers[1])


@given(st.text(max_size=30) | st.text("0123456789.-", max_size=12))
def test_only_exact_versions_are_versions(text: str) -> None:
    """Any text is either exactly a version of the line, or none."""
    tag = f"{IMAGE.tag}-{text}"
    version = IMAGE.version_of(tag)
    assert version is None or IMAGE.version_tag(version) == tag


@given(VERSIONS, st.booleans())
def test_the_next_version_is_newer(newest: Version, new_base: bool) -> None:
    """A version is never given twice: the next one is above the newest."""
    assert next_version(newest, new_base=new_base) > newest
    assert next_version(None, new_base=new_base) == Version(1, 0, 0)
