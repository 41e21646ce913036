"""The local world: a registry that plays MCR, ECR, and Azure DevOps, filled with what a catalog speaks of.

The demo shows it to people, and tests run the bot against it.
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from bot.catalog.catalog import Catalog
from bot.core.images import Digest, ImagePlatform, ImageReference, PlatformImage, Version
from bot.core.order import parents_first
from bot.demo.agent import ScriptedAgent
from bot.demo.azure_devops import AzureDevOps
from bot.demo.ecr import LocalEcr
from bot.demo.image_builder import Blob, BuiltImage, Layer, make_image, make_index, make_layer
from bot.demo.registry import LocalRegistry
from bot.demo.release_metadata import CHANNELS, LocalReleases
from bot.demo.runs import Agent, AgentRun, Definition

PLATFORMS = (ImagePlatform.parse("linux/amd64"), ImagePlatform.parse("linux/arm64"))
FAST = {"Build": 0.0, "Test": 0.0, "Push": 0.0}
Fails = Callable[[AgentRun], tuple[str, Iterable[str]] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """How often a base was published for a platform, and which .NET it holds; empty for something else."""

    number: int = 0
    version: str = ""


class LocalWorld:
    """The peers, as an async context manager.

    `ports` are those of registry, ECR, Azure DevOps and release metadata; 0 is any free one.

    What `directory` holds survives a restart. `agent` replaces the scripted one, `now` is Azure's clock.
    """

    def __init__(
        self,
        directory: Path,
        catalog: Catalog,
        *,
        durations: Mapping[str, float] = FAST,
        fails: Fails = lambda run: None,
        ports: tuple[int, int, int, int] = (0, 0, 0, 0),
        agent: Agent | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.catalog = catalog
        self.registry = LocalRegistry(directory / "registry", port=ports[0])
        self.ecr = LocalEcr(self.registry, port=ports[1])
        self.azure = AzureDevOps(
            agent=agent or ScriptedAgent(durations, self.build, fails),
            definitions=_definitions(catalog),
            state=directory / "runs.json",
            port=ports[2],
            now=now,
        )
        self.releases = LocalReleases(port=ports[3])
        self._generations = directory / "bases.json"
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.registry)
            await stack.enter_async_context(self.ecr)
            await stack.enter_async_context(self.azure)
            await stack.enter_async_context(self.releases)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def environment(self) -> dict[str, str]:
        """The settings that lead a bot here, as environment variables."""
        mirrors = {image.base.registry: self.registry.url for image in self.catalog.values() if image.base}
        return {
            **self.ecr.environment(),
            "SHIPSHAPE_REGISTRY_MIRRORS": json.dumps(mirrors),
            "SHIPSHAPE_AZURE_DEVOPS_URL": self.azure.url,
            "SHIPSHAPE_AZURE_DEVOPS_TOKEN": "local",
            "SHIPSHAPE_RELEASE_METADATA_URL": self.releases.url,
        }

    def seed(self, version: str = "1.3.0") -> None:
        """Every base, and every image in one version built on it. Does nothing in a world that has them already."""
        for image in self.catalog.values():
            if image.base and not self.registry.storage.tags(image.base.repository).get(str(image.base.tag)):
                self.move_base(image.base)
        for image in map(self.catalog.__getitem__, parents_first(self.catalog, self.catalog)):
            if not any(image.version_of(tag) for tag in self.registry.storage.tags(self._ours(image))):
                parsed = Version.parse(version)
                assert parsed is not None
                self.publish(image, image.version_tag(parsed), self.base_digest(image))

    def move_base(
        self, base: ImageReference, platforms: Iterable[ImagePlatform] = PLATFORMS, version: str | None = None
    ) -> Digest:
        """Publish a new index of a base; only the children of the given platforms are new ones. Returns its digest.

        They hold that version of .NET, without one the same as before.
        """
        generations, name = self._read_generations(), str(base)
        for platform in platforms:
            before = generations.get(f"{name} {platform}")
            generations[f"{name} {platform}"] = Generation(
                number=before.number + 1 if before else 1,
                version=version or (before.version if before else _first_version(base)),
            )
        self._write_generations(generations)
        known = [(platform, generations.get(f"{name} {platform}", Generation())) for platform in PLATFORMS]
        children = [_base_image(name, platform, generation) for platform, generation in known]
        return self.registry.push(base.repository, base.tag, make_index(children, docker=True))

    def base_digest(self, image: PlatformImage) -> Digest:
        """What the image's base is now."""
        repository, tag = (image.base.repository, image.base.tag) if image.base else self._parent_line(image)
        return self.registry.storage.tags(repository)[str(tag)]

    def publish(self, image: PlatformImage, version_tag: str, base: Digest) -> Digest:
        """Put a version of an image into ECR, labelled with the base it was built from."""
        layers = self._layers(image, base)
        own = make_layer({"etc/platform-image": f"{image.name} {version_tag}\n"})
        labels = {
            "org.opencontainers.image.base.name": str(image.base or f"platform:{image.parent}"),
            "org.opencontainers.image.base.digest": base,
            "org.opencontainers.image.version": version_tag,
        }
        built = make_image([*layers, own], labels=labels, platform=image.platforms[0])
        return self.ecr.publish(image.repository, [version_tag, *image.extra_tags, image.tag, "latest"], built)

    async def build(self, run: AgentRun) -> None:
        """What the Push stage leaves behind: the version that the run was asked for, on the base it was given."""
        image = self.catalog[run.parameters["image"]]
        base = ImageReference.parse(run.parameters["base"])
        assert base.digest is not None
        self.publish(image, run.parameters["version_tag"], base.digest)

    def _layers(self, image: PlatformImage, base: Digest) -> list[Layer]:
        """The layers of the base for the image's platform, so that they are its first ones in truth."""
        if image.parent:
            return self._published_layers(self._ours(self.catalog[image.parent]), base)
        name = str(image.base)
        generation = self._read_generations().get(f"{name} {image.platforms[0]}", Generation())
        return list(_base_image(name, image.platforms[0], generation).layers)

    def _published_layers(self, repository: str, digest: Digest) -> list[Layer]:
        storage = self.registry.storage
        published = storage.manifest(repository, digest)
        assert published is not None
        manifest = json.loads(published.content)
        diff_ids = json.loads(storage.blob(manifest["config"]["digest"]) or b"")["rootfs"]["diff_ids"]
        return [
            Layer(
                blob=Blob(media_type=layer["mediaType"], content=storage.blob(layer["digest"]) or b""), diff_id=diff_id
            )
            for layer, diff_id in zip(manifest["layers"], diff_ids, strict=True)
        ]

    def _ours(self, image: PlatformImage) -> str:
        return f"{image.registry_id}/{image.repository}"

    def _parent_line(self, image: PlatformImage) -> tuple[str, str]:
        assert image.parent is not None
        parent = self.catalog[image.parent]
        return self._ours(parent), parent.tag

    def _read_generations(self) -> dict[str, Generation]:
        found = json.loads(self._generations.read_text()) if self._generations.exists() else {}
        return {key: Generation(**generation) for key, generation in found.items()}

    def _write_generations(self, generations: Mapping[str, Generation]) -> None:
        found = {key: asdict(generation) for key, generation in generations.items()}
        self._generations.write_text(json.dumps(found))


@cache
def _base_image(name: str, platform: ImagePlatform, generation: Generation) -> BuiltImage:
    """A small image that is the same for the same arguments. The filling gives it a size worth showing."""
    system = make_layer({"etc/os-release": f"{name}\n", "usr/lib/filling": _noise(f"{name} {platform}")}, docker=True)
    update = make_layer({"usr/share/dotnet/version": f"{name} {platform} {generation.number}\n"}, docker=True)
    environment = _environment(name, generation.version)
    return make_image([system, update], environment=environment, platform=platform, docker=True)


def _environment(name: str, version: str) -> dict[str, str]:
    """What Microsoft's images say about the .NET in them: one of the SDK holds ASP.NET Core, which holds the runtime.

    https://github.com/dotnet/dotnet-docker/tree/main/src
    """
    kind = ImageReference.parse(name).repository.rpartition("/")[2] if version else ""
    found = {"DOTNET_VERSION": version} if kind in ("runtime", "aspnet", "sdk") else {}
    if kind in ("aspnet", "sdk"):
        found["ASPNET_VERSION"] = version
    if kind == "sdk":
        found["DOTNET_SDK_VERSION"] = CHANNELS[version.rpartition(".")[0]].release(version).sdk
    return found


def _first_version(base: ImageReference) -> str:
    """The oldest release that the local release metadata has of the tag's version; empty when it has none."""
    channel = CHANNELS.get((base.tag or "").partition("-")[0])
    return channel.releases[0].version if channel else ""


def _noise(seed: str) -> str:
    return "".join(random.Random(seed).choices("0123456789abcdef", k=400_000))


def _definitions(catalog: Catalog) -> dict[int, Definition]:
    """One definition per pipeline id; several images may share one."""
    return {
        image.pipeline.id: Definition(name=f"{image.name} pipeline", project=image.pipeline.project)
        for image in reversed(list(catalog.values()))
    }
