"""What the local registry keeps on disk.

blobs/HEX                            every blob and manifest, by its digest
repositories/NAME/_manifests/HEX     the media type of a manifest of the repository
repositories/NAME/_tags/TAG          the digest a tag points to
"""

import os
from collections.abc import Iterator
from pathlib import Path

from bot.clients.documents import digest_of
from bot.core.images import DIGEST, REPOSITORY, TAG, Digest
from bot.demo.image_builder import Blob, BuiltImage


class RegistryStorage:
    """Manifests, tags and blobs in a folder. Names are checked, so no path leads out of it."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._repositories = root / "repositories"

    def put_blob(self, content: bytes) -> Digest:
        digest = digest_of(content)
        if self.blob(digest) is None:
            _write(self._blobs / _hex(digest), content)
        return digest

    def blob(self, digest: Digest) -> bytes | None:
        path = self._blobs / _hex(digest)
        return path.read_bytes() if path.is_file() else None

    def put_manifest(self, repository: str, manifest: Blob, tag: str | None = None) -> None:
        """Keep a manifest, and let the tag point to it."""
        self.put_blob(manifest.content)
        known = self._folder(repository, "_manifests") / _hex(manifest.digest)
        if not known.is_file():  # else it keeps its time
            _write(known, manifest.media_type.encode())
        if tag is not None:
            self.move(repository, tag, manifest.digest)

    def push(self, repository: str, tag: str | None, image: BuiltImage) -> None:
        """Keep an image with everything it needs."""
        for child in image.children:
            self.push(repository, None, child)
        for blob in image.blobs:
            self.put_blob(blob.content)
        self.put_manifest(repository, image.manifest, tag)

    def move(self, repository: str, tag: str, digest: Digest) -> None:
        """Let a tag point to a manifest of the repository."""
        if not TAG.fullmatch(tag):
            raise ValueError(f"{tag!r} is not a tag")
        _write(self._folder(repository, "_tags") / tag, digest.encode())

    def untag(self, repository: str, tag: str) -> None:
        """Take a tag away; its manifest stays."""
        (self._folder(repository, "_tags") / tag).unlink()

    def manifest(self, repository: str, reference: str) -> Blob | None:
        """The manifest that a tag or digest names."""
        digest = Digest(reference) if DIGEST.fullmatch(reference) else self.tags(repository).get(reference)
        if digest is None:
            return None
        media_type = self._folder(repository, "_manifests") / _hex(digest)
        content = self.blob(digest)
        if content is None or not media_type.is_file():
            return None
        return Blob(media_type=media_type.read_text(), content=content)

    def manifests(self, repository: str) -> dict[Digest, float]:
        """When each manifest of the repository came, in seconds since the epoch; oldest first."""
        files = _files(self._folder(repository, "_manifests"))
        return {
            Digest(f"sha256:{path.name}"): path.stat().st_mtime
            for path in sorted(files, key=lambda path: (path.stat().st_mtime, path.name))
        }

    def tags(self, repository: str) -> dict[str, Digest]:
        """Each tag's digest, in the order of the tags' names."""
        return {path.name: Digest(path.read_text()) for path in sorted(_files(self._folder(repository, "_tags")))}

    def repositories(self) -> list[str]:
        folders = self._repositories.rglob("_manifests")
        return sorted(folder.parent.relative_to(self._repositories).as_posix() for folder in folders)

    def _folder(self, repository: str, kind: str) -> Path:
        if not REPOSITORY.fullmatch(repository):
            raise ValueError(f"{repository!r} is not a repository name")
        return self._repositories / repository / kind


def _hex(digest: Digest) -> str:
    return digest.removeprefix("sha256:")


def _files(folder: Path) -> Iterator[Path]:
    # Names of files that are being written start with a dot.
    return folder.glob("[!.]*")


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, also when the process ends in the middle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}")
    part.write_bytes(content)
    os.replace(part, path)
