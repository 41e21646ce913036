"""Real OCI and Docker images made in memory: layers, configuration, manifest and index, with true digests."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from bot.clients.documents import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, digest_of
from bot.core.images import Digest, ImagePlatform

Json = dict[str, Any]

LINUX_AMD64 = ImagePlatform("linux", "amd64")
ATTESTATION = ImagePlatform("unknown", "unknown")  # as BuildKit puts them into an index


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """Bytes as a registry keeps them."""

    media_type: str
    content: bytes

    @property
    def digest(self) -> Digest:
        return digest_of(self.content)

    @property
    def descriptor(self) -> Json:
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content)}

    @classmethod
    def of_json(cls, media_type: str, document: Json) -> Self:
        return cls(media_type=media_type, content=json.dumps(document, separators=(",", ":")).encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A compressed layer. `diff_id` is the digest of what it holds uncompressed."""

    blob: Blob
    diff_id: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """An image with what it needs: layers and configuration of a single image, or the children of an index."""

    manifest: Blob
    platform: ImagePlatform = ATTESTATION
    layers: tuple[Layer, ...] = ()
    config: Blob | None = None
    children: tuple["BuiltImage", ...] = ()

    @property
    def digest(self) -> Digest:
        return self.manifest.digest

    @property
    def blobs(self) -> tuple[Blob, ...]:
        return (*(layer.blob for layer in self.layers), *([self.config] if self.config else []))


def make_layer(files: Mapping[str, str], *, docker: bool = False) -> Layer:
    """A layer of text files by path. Equal files give equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, text in sorted(files.items()):
            member = tarfile.TarInfo(path)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    tar = buffer.getvalue()
    media_type = (
        "application/vnd.docker.image.rootfs.diff.tar.gzip" if docker else "application/vnd.oci.image.layer.v1.tar+gzip"
    )
    return Layer(blob=Blob(media_type=media_type, content=gzip.compress(tar, mtime=0)), diff_id=digest_of(tar))


def make_image(
    layers: Sequence[Layer],
    *,
    labels: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    platform: ImagePlatform = LINUX_AMD64,
    annotations: Mapping[str, str] | None = None,
    docker: bool = False,
) -> BuiltImage:
    """A single image; `docker` for the media types of Docker instead of OCI's."""
    config = Blob.of_json(
        "application/vnd.docker.container.image.v1+json" if docker else "application/vnd.oci.image.config.v1+json",
        {
            **_platform(platform),
            # docker writes null for "no labels".
            "config": {
                "Labels": dict(labels) if labels else None,
                "Env": [f"{name}={value}" for name, value in (environment or {}).items()],
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        },
    )
    descriptors = {"config": config.descriptor, "layers": [layer.blob.descriptor for layer in layers]}
    manifest = _document(DOCKER_MANIFEST if docker else OCI_MANIFEST, descriptors, annotations)
    return BuiltImage(manifest=manifest, platform=platform, layers=tuple(layers), config=config)


def make_index(
    children: Sequence[BuiltImage], *, annotations: Mapping[str, str] | None = None, docker: bool = False
) -> BuiltImage:
    """An index over images of different platforms."""
    manifests = [{**child.manifest.descriptor, "platform": _platform(child.platform)} for child in children]
    manifest = _document(DOCKER_LIST if docker else OCI_INDEX, {"manifests": manifests}, annotations)
    return BuiltImage(manifest=manifest, children=tuple(children))


def _document(media_type: str, members: Json, annotations: Mapping[str, str] | None) -> Blob:
    noted = {"annotations": dict(annotations)} if annotations else {}
    return Blob.of_json(media_type, {"schemaVersion": 2, "mediaType": media_type, **members, **noted})


def _platform(platform: ImagePlatform) -> Json:
    variant = {"variant": platform.variant} if platform.variant else {}
    return {"os": platform.os, "architecture": platform.architecture, **variant}
