"""A small OCI registry that keeps its images in a folder, with switches to break it at the wire.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md, without chunked uploads.
`image_builder` makes images for it, `registry_storage` keeps them.
"""

import asyncio
import re
import socket
import ssl
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from bot.clients.documents import END_OF_LIFE, LIFECYCLE, OCI_INDEX, OCI_MANIFEST
from bot.core.images import DIGEST, Digest
from bot.demo.image_builder import Blob, BuiltImage
from bot.demo.registry_storage import RegistryStorage

DIGEST_HEADER = "Docker-Content-Digest"
UPLOAD_LIMIT = 2**28  # bytes

Failure = Callable[[web.Request, Handler], Awaitable[web.StreamResponse]]
Resolve = Callable[[str, str], tuple[bytes, str] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as it arrived. `query` is as it was sent, without decoding."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]


def answering(status: int, *, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Failure:
    """A failure: this answer instead of the right one."""

    async def fail(request: web.Request, handler: Handler) -> web.StreamResponse:
        return web.Response(status=status, headers=headers, body=body)

    return fail


async def hang(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A failure: no answer, ever."""
    await asyncio.Event().wait()
    return web.Response()


async def cut_short(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A failure: the connection breaks in the middle of the answer."""
    response = web.StreamResponse(headers={hdrs.CONTENT_LENGTH: "1000"})
    await response.prepare(request)
    if request.method != hdrs.METH_HEAD:
        await response.write(b"{")
    if request.transport:
        request.transport.close()
    return response


class LocalRegistry:
    """The server; an async context manager that listens on 127.0.0.1 while entered.

    `url` is known once entered. `requests` lists every request in the order of arrival. May be set at any time:
    `latency_s` before every answer, `digest_header` whether answers carry the digest, and `resolve`, which is asked for
    (repository, tag or digest) before the folder is and gives content and media type, or None.
    `ends` has the last day of support of images by their digest.
    With `require_token` it only answers those who did the token handshake; `tokens` are those that are valid.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int = 0,
        require_token: bool = False,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self.url = ""
        self.storage = RegistryStorage(root)
        self.requests: list[Request] = []
        self.tokens: set[str] = set()
        self.latency_s = 0.0
        self.digest_header = True
        self.ends: dict[Digest, str] = {}
        self.resolve = resolve
        self._port, self._require_token, self._tls = port, require_token, tls
        self._failures: list[_PlannedFailure] = []

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", self._port))
        self.url = f"{'https' if self._tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
        app = web.Application(middlewares=[self._meet], client_max_size=UPLOAD_LIMIT)
        app.add_routes(self._routes())
        # A request that hangs on purpose must not hold up the end.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.SockSite(self._runner, listener, ssl_context=self._tls).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    def push(self, repository: str, tag: str | None, image: BuiltImage) -> Digest:
        """Keep an image under a tag, or without one."""
        self.storage.push(repository, tag, image)
        return image.digest

    def move(self, repository: str, tag: str, digest: Digest) -> None:
        """Let a tag point to a manifest that the repository has."""
        self.storage.move(repository, tag, digest)

    def fail_next(self, method: str, path: str, how: Failure, times: int = 1) -> None:
        """Break the next `times` requests of the method whose path has a match of the pattern."""
        self._failures.append(_PlannedFailure(method, re.compile(path), how, times))

    def recover(self) -> None:
        """Break nothing any more."""
        self._failures.clear()

    def count(self, method: str, path: str = "") -> int:
        """How many requests of the method came whose path has a match of the pattern."""
        return sum(request.method == method and bool(re.search(path, request.path)) for request in self.requests)

    def _routes(self) -> list[web.RouteDef]:
        return [
            web.get("/token", self._token),
            web.get("/v2/", self._root),
            web.get("/v2/{name:.+}/tags/list", self._list_tags),
            web.get("/v2/{name:.+}/manifests/{reference}", self._get_manifest),
            web.put("/v2/{name:.+}/manifests/{reference}", self._put_manifest),
            web.get("/v2/{name:.+}/referrers/{digest}", self._referrers),
            web.post("/v2/{name:.+}/blobs/uploads/", self._start_upload),
            web.put("/v2/{name:.+}/blobs/uploads/{upload}", self._upload),
            web.get("/v2/{name:.+}/blobs/{digest}", self._get_blob),
        ]

    @web.middleware
    async def _meet(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(
            Request(
                method=request.method,
                path=request.path,
                query=request.rel_url.raw_query_string,
                headers=request.headers.copy(),
            )
        )
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        planned = next((failure for failure in self._failures if failure.meets(request)), None)
        if planned is None:
            return await self._answer(request, handler)
        planned.times -= 1
        return await planned.how(request, handler)

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._require_token and request.path != "/token" and not self._is_admitted(request):
            return self._challenge(request)
        try:
            return await handler(request)
        except ValueError as error:
            return _error(400, "NAME_INVALID", str(error))

    def _is_admitted(self, request: web.Request) -> bool:
        return request.headers.get(hdrs.AUTHORIZATION, "").removeprefix("Bearer ") in self.tokens

    def _challenge(self, request: web.Request) -> web.Response:
        scope = f"repository:{request.match_info.get('name', '')}:pull"
        response = _error(401, "UNAUTHORIZED", "authentication required")
        response.headers[hdrs.WWW_AUTHENTICATE] = f'Bearer realm="{self.url}/token",service="local",scope="{scope}"'
        return response

    async def _token(self, request: web.Request) -> web.Response:
        token = f"{request.query.get('scope', '')}-{uuid.uuid4()}"
        self.tokens.add(token)
        return web.json_response({"token": token, "expires_in": 300})

    async def _root(self, request: web.Request) -> web.Response:
        return web.json_response({}, headers={"Docker-Distribution-Api-Version": "registry/2.0"})

    async def _list_tags(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        rest = [tag for tag in self.storage.tags(name) if tag > request.query.get("last", "")]
        size = int(request.query.get("n", len(rest)))
        if not rest and not self.storage.manifests(name):
            return _error(404, "NAME_UNKNOWN", "repository name not known to registry")
        response = web.json_response({"name": name, "tags": rest[:size]})
        if 0 < size < len(rest):
            response.headers[hdrs.LINK] = f'</v2/{name}/tags/list?n={size}&last={rest[size - 1]}>; rel="next"'
        return response

    async def _get_manifest(self, request: web.Request) -> web.Response:
        name, reference = request.match_info["name"], request.match_info["reference"]
        manifest = self._resolved(name, reference) or self.storage.manifest(name, reference)
        # Like Debian's docker-registry: a type that the caller does not name is not there.
        if manifest is None or not _accepts(request, manifest.media_type):
            return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        headers = {DIGEST_HEADER: manifest.digest} if self.digest_header else {}
        return web.Response(body=manifest.content, headers=headers, content_type=manifest.media_type)

    def _resolved(self, name: str, reference: str) -> Blob | None:
        found = self.resolve(name, reference) if self.resolve else None
        return Blob(content=found[0], media_type=found[1]) if found else None

    async def _referrers(self, request: web.Request) -> web.Response:
        """What Microsoft attaches to an image that is out of support or has been replaced."""
        ends = self.ends.get(Digest(request.match_info["digest"]))
        annotations = {END_OF_LIFE: ends, "org.opencontainers.image.created": f"{ends}T05:32:10Z"}
        note = Blob.of_json(OCI_MANIFEST, {"artifactType": LIFECYCLE, "annotations": annotations})
        found = [{**note.descriptor, "artifactType": LIFECYCLE, "annotations": annotations}] if ends else []
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
        return web.json_response(index, content_type=OCI_INDEX)

    async def _put_manifest(self, request: web.Request) -> web.Response:
        name, reference = request.match_info["name"], request.match_info["reference"]
        manifest = Blob(media_type=request.content_type, content=await request.read())
        is_digest = DIGEST.fullmatch(reference) is not None
        if is_digest and reference != manifest.digest:
            return _error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        self.storage.put_manifest(name, manifest, None if is_digest else reference)
        location = f"/v2/{name}/manifests/{manifest.digest}"
        return web.Response(status=201, headers={hdrs.LOCATION: location, DIGEST_HEADER: manifest.digest})

    async def _start_upload(self, request: web.Request) -> web.Response:
        location = f"/v2/{request.match_info['name']}/blobs/uploads/{uuid.uuid4()}"
        return web.Response(status=202, headers={hdrs.LOCATION: location})

    async def _upload(self, request: web.Request) -> web.Response:
        digest = self.storage.put_blob(await request.read())
        if digest != request.query.get("digest"):
            return _error(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        location = f"/v2/{request.match_info['name']}/blobs/{digest}"
        return web.Response(status=201, headers={hdrs.LOCATION: location, DIGEST_HEADER: digest})

    async def _get_blob(self, request: web.Request) -> web.Response:
        digest = Digest(request.match_info["digest"])
        content = self.storage.blob(digest)
        if content is None:
            return _error(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return web.Response(body=content, headers={DIGEST_HEADER: digest}, content_type="application/octet-stream")


@dataclass(slots=True)
class _PlannedFailure:
    method: str
    path: re.Pattern[str]
    how: Failure
    times: int

    def meets(self, request: web.Request) -> bool:
        return self.times > 0 and self.method == request.method and bool(self.path.search(request.path))


def _accepts(request: web.Request, media_type: str) -> bool:
    accept = request.headers.get(hdrs.ACCEPT, "*/*")
    return "*/*" in accept or media_type in [part.split(";")[0].strip() for part in accept.split(",")]


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status)
