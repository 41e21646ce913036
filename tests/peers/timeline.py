"""What Microsoft's registry served at any moment of the past, from the recorded history of its digests.

The data stays in `../shared/timeline`, whose README tells how far a replay is true. HEAD of a tag always is. GET is
for the indexes whose bytes could be recovered, which are those without Windows. Every other document, such as a child
manifest, a configuration, or an index with Windows in it, was not recorded and is answered with 404.
"""

import importlib.util
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from aiohttp import web
from aiohttp.typedefs import Handler

from bot.clients.documents import DOCKER_LIST, DOCKER_MANIFEST
from bot.core.images import Digest, ImageReference
from bot.core.ports import Clock
from bot.demo.registry import DIGEST_HEADER, LocalRegistry

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "timeline"
DATA = FOLDER / "mcr-timeline-public.jsonl.gz"
HOST = "mcr.microsoft.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One digest of the history.

    `children` has the digest for each `os/architecture` of an index, and the image itself when it is a single one.
    `systems` are the releases it is built on, such as alpine3.21. `content` is None where the bytes are not known.
    """

    digest: Digest
    is_index: bool
    children: Mapping[str, Digest]
    systems: frozenset[str]
    content: bytes | None


class History:
    """The recorded history of Microsoft's tags. References are those of a catalog: `mcr.microsoft.com/NAME:TAG`."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        _, self._digests, self._tags = loader.load(DATA)
        self._ids = {(found["repo"], found["digest"]): key for key, found in self._digests.items()}

    @classmethod
    def read(cls) -> Self:
        """Load the data with the loader that lies beside it; takes a second."""
        spec = importlib.util.spec_from_file_location("timeline_loader", FOLDER / "timeline.py")
        assert spec
        assert spec.loader
        loader = importlib.util.module_from_spec(spec)
        # The folder is read only, also for the byte code that Python would put beside the file.
        writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        try:
            spec.loader.exec_module(loader)
        finally:
            sys.dont_write_bytecode = writes
        return cls(loader)

    def events(self, reference: ImageReference) -> list[tuple[datetime, Recorded | None]]:
        """Every publication of a tag, oldest first; None where the tag was taken off the list."""
        return [
            (datetime.fromtimestamp(at, UTC), None if key is None else self._recorded(key))
            for at, key, _ in self._tag(reference).events
        ]

    def at(self, reference: ImageReference, moment: datetime) -> Recorded | None:
        """What the tag led to; None before it existed."""
        key = self._tag(reference).at(moment.timestamp())
        return None if key is None else self._recorded(key)

    def changes(self, reference: ImageReference, since: datetime, until: datetime) -> list[Recorded]:
        """The digests that a tag got after `since` and until `until`, as far as each differs from the one before."""
        found, last = [], self.at(reference, since)
        for moment, digest in self.events(reference):
            if digest and digest != last and since < moment <= until:
                found.append(digest)
                last = digest
        return found

    def find(self, repository: str, digest: str) -> Recorded | None:
        key = self._ids.get((repository, digest))
        return None if key is None else self._recorded(key)

    def _tag(self, reference: ImageReference) -> Any:
        return self._tags[reference.repository, reference.tag]

    def _recorded(self, key: int) -> Recorded:
        found = self._digests[key]
        is_index = found["kind"] == "index"
        images = [self._digests[child] for child in found["children"]] if is_index else [found]
        return Recorded(
            digest=Digest(found["digest"]),
            is_index=is_index,
            # Backwards, so that of several Windows versions the first is kept.
            children={f"{image['os']}/{image['arch']}": Digest(image["digest"]) for image in reversed(images)},
            systems=frozenset(image["osVersion"] for image in images),
            content=self._loader.document(found, self._digests) if is_index else None,
        )


class PastRegistry:
    """Lets a local registry answer as Microsoft's did at the clock's moment."""

    def __init__(self, history: History, clock: Clock) -> None:
        self._history, self._clock = history, clock

    def play_on(self, registry: LocalRegistry, bases: Iterable[ImageReference]) -> None:
        """`bases` are the tags that will be asked for."""
        registry.resolve = self._resolve
        for base in bases:
            if any(found and found.content is None for _, found in self._history.events(base)):
                path = re.escape(f"/v2/{base.repository}/manifests/{base.tag}")
                registry.fail_next("HEAD", f"^{path}$", self._head, times=sys.maxsize)

    def _resolve(self, repository: str, reference: str) -> tuple[bytes, str] | None:
        found = self._find(repository, reference)
        return (found.content, DOCKER_LIST) if found and found.content is not None else None

    async def _head(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The digest of a tag is known also where the document is not."""
        found = self._find(request.match_info["name"], request.match_info["reference"])
        if found is None:
            return await handler(request)
        media_type = DOCKER_LIST if found.is_index else DOCKER_MANIFEST
        return web.Response(headers={DIGEST_HEADER: found.digest}, content_type=media_type)

    def _find(self, repository: str, reference: str) -> Recorded | None:
        if reference.startswith("sha256:"):
            return self._history.find(repository, reference)
        return self._history.at(ImageReference(registry=HOST, repository=repository, tag=reference), self._clock.now())
