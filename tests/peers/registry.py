"""What tests of the registry and ECR clients share."""

import asyncio
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from yarl import URL

from bot.core.images import (
    ApprovalRules,
    Digest,
    ImagePlatform,
    ImageReference,
    PipelineReference,
    PlatformImage,
)
from bot.demo.image_builder import Blob, BuiltImage

ACCOUNT, REGION = "123456789012", "eu-west-1"
BASE = ImageReference.parse("mcr.microsoft.com/dotnet/sdk:6.0-bullseye-slim")
LINUX_ARM64 = ImagePlatform.parse("linux/arm64")
WINDOWS = ImagePlatform.parse("windows/amd64")


def platform_image(
    *, tag: str = "6.0-bullseye-slim", platforms: tuple[ImagePlatform, ...] = (ImagePlatform("linux", "amd64"),)
) -> PlatformImage:
    """A line of the repository dotnet/sdk in ECR, built on BASE."""
    return PlatformImage(
        name=f"dotnet-sdk-{tag}",
        base=BASE,
        registry_id=ACCOUNT,
        region=REGION,
        repository="dotnet/sdk",
        tag=tag,
        pipeline=PipelineReference(project="platform-images", id=12),
        platforms=platforms,
        approval=ApprovalRules(approvers=frozenset({"platform-team@contoso.com"})),
    )


class MemoryCache:
    """The port `DocumentCache`, in memory."""

    def __init__(self) -> None:
        self.documents: dict[Digest, bytes] = {}

    async def get(self, digest: Digest) -> bytes | None:
        return self.documents.get(digest)

    async def put(self, digest: Digest, content: bytes) -> None:
        self.documents[digest] = content


class Pauses:
    """A sleep that only notes for how long it was asked, in seconds."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@dataclass(slots=True)
class ScriptedServer:
    """A server on loopback that answers each request with the next of its answers, the last one for ever.

    `bodies` are the requests' JSON. A held answer is chosen when its request comes, and sent after `go_on`.
    """

    url: str = ""
    bodies: list[Any] = field(default_factory=list)
    _answers: list[tuple[int, str]] = field(default_factory=list)
    _arrived: asyncio.Event | None = None
    _released: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, status: int, document: Mapping[str, Any]) -> None:
        """Plan one more answer of JSON."""
        self.answer_text(status, json.dumps(document))

    def answer_text(self, status: int, text: str) -> None:
        """Plan one more answer of any text."""
        self._answers.append((status, text))

    def hold_next(self) -> asyncio.Event:
        """Keep the next request waiting. Returns an event that is set when it has come."""
        self._arrived = asyncio.Event()
        return self._arrived

    def go_on(self) -> None:
        """Let a held request have its answer."""
        self._released.set()

    async def _handle(self, request: web.Request) -> web.Response:
        text = await request.text()
        self.bodies.append(json.loads(text) if text else None)
        status, answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if self._arrived:
            self._arrived.set()
            self._arrived = None
            await self._released.wait()
        return web.Response(status=status, text=answer)


@asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    server = ScriptedServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server._handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


async def push_over_http(
    session: aiohttp.ClientSession, url: str, repository: str, tag: str | None, image: BuiltImage
) -> None:
    """Push an image as a client of the distribution API does."""
    for child in image.children:
        await push_over_http(session, url, repository, None, child)
    for blob in image.blobs:
        await _upload(session, url, repository, blob)
    headers = {"Content-Type": image.manifest.media_type}
    manifest = f"{url}/v2/{repository}/manifests/{tag or image.digest}"
    async with session.put(manifest, data=image.manifest.content, headers=headers) as response:
        assert response.status == 201, await response.text()
        assert response.headers["Docker-Content-Digest"] == image.digest


async def _upload(session: aiohttp.ClientSession, url: str, repository: str, blob: Blob) -> None:
    async with session.post(f"{url}/v2/{repository}/blobs/uploads/") as started:
        assert started.status == 202, await started.text()
        location = started.url.join(URL(started.headers["Location"]))
    async with session.put(location.update_query({"digest": blob.digest}), data=blob.content) as response:
        assert response.status == 201, await response.text()


def certificate(folder: Path, host: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a server named `host`, and for clients that trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([_alternative_name(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "tls.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    return server, ssl.create_default_context(cafile=str(path))


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
