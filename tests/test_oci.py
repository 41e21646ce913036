"""The registry client against a local registry, with what registries do on bad days."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.typedefs import Handler

from bot.clients.documents import MANIFEST_LIMIT, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST, digest_of
from bot.clients.http import Limits, open_session
from bot.clients.oci import OciRegistry
from bot.core.images import Digest, ImagePlatform, ImageReference
from bot.demo.image_builder import ATTESTATION, LINUX_AMD64, make_image, make_index, make_layer
from bot.demo.registry import LocalRegistry, answering, cut_short, hang
from bot.errors import ConfigError, NotFound, PeerRefused, PeerUnavailable
from tests.peers.registry import BASE, LINUX_ARM64, WINDOWS, MemoryCache, Pauses, certificate

LIMITS = Limits()
LAYER = make_layer({"etc/os-release": "ID=debian\n"})
IMAGE = make_image([LAYER], labels={"version": "6.0.36"})
INDEX = make_index([IMAGE, make_image([LAYER], platform=LINUX_ARM64)])


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[LocalRegistry]:
    async with LocalRegistry(tmp_path / "registry") as registry:
        yield registry


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session(LIMITS) as session:
        yield session


@pytest.fixture
def cache() -> MemoryCache:
    return MemoryCache()


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def client(session: aiohttp.ClientSession, registry: LocalRegistry, cache: MemoryCache, pauses: Pauses) -> OciRegistry:
    return OciRegistry(session, cache, mirrors={BASE.registry: registry.url}, limits=LIMITS, sleep=pauses)


# What a tag points to


@pytest.mark.parametrize(
    "image",
    [INDEX, IMAGE, make_index([IMAGE], docker=True), make_image([LAYER], docker=True)],
    ids=lambda i: i.manifest.media_type,
)
async def test_current_asks_once_with_head(client: OciRegistry, registry: LocalRegistry, image: Any) -> None:
    """The digest of a tag costs one HEAD that accepts every kind of manifest."""
    registry.push(BASE.repository, BASE.tag, image)
    assert await client.current(BASE) == image.digest
    (request,) = registry.requests
    assert (request.method, request.path) == ("HEAD", "/v2/dotnet/sdk/manifests/6.0-bullseye-slim")
    assert set(request.headers["Accept"].split(", ")) == set(MANIFEST_TYPES)
    assert client.requests == 1


async def test_current_hashes_the_bytes_without_a_header(client: OciRegistry, registry: LocalRegistry) -> None:
    """A registry that does not name the digest is asked for the document, whose hash it is."""
    registry.push(BASE.repository, BASE.tag, INDEX)
    registry.digest_header = False
    assert await client.current(BASE) == INDEX.digest
    assert [request.method for request in registry.requests] == ["HEAD", "GET"]


async def test_current_takes_no_page_for_a_manifest(client: OciRegistry, registry: LocalRegistry) -> None:
    """A proxy that answers everything with a page of HTML is not an update."""
    page = answering(200, body=b"<html>please sign in</html>")
    registry.fail_next("HEAD", "", page)
    registry.fail_next("GET", "", page)
    with pytest.raises(PeerUnavailable, match=r"^mcr\.microsoft\.com answered nonsense"):
        await client.current(BASE)


async def test_current_refuses_a_digest_that_is_none(client: OciRegistry, registry: LocalRegistry) -> None:
    """A digest header with anything but a sha256 digest is nonsense."""
    registry.fail_next("HEAD", "", answering(200, headers={"Docker-Content-Digest": "sha256:abc"}))
    with pytest.raises(PeerUnavailable, match=r"answered nonsense .*'sha256:abc' is not a sha256 digest"):
        await client.current(BASE)


async def test_current_of_a_pinned_reference_is_asked_by_digest(client: OciRegistry, registry: LocalRegistry) -> None:
    """A base pinned to a digest stays there, wherever its tag goes."""
    registry.push(BASE.repository, BASE.tag, IMAGE)
    registry.push(BASE.repository, BASE.tag, INDEX)
    assert await client.current(BASE.at(IMAGE.digest)) == IMAGE.digest


async def test_two_hundred_bases_cost_two_hundred_requests(client: OciRegistry, registry: LocalRegistry) -> None:
    """Each base costs exactly one request, however many are asked for at once."""
    tags = [f"6.0.{number}" for number in range(200)]
    for tag in tags:
        registry.push(BASE.repository, tag, INDEX)
    found = await asyncio.gather(*(client.current(replace(BASE, tag=tag)) for tag in tags))
    assert set(found) == {INDEX.digest}
    assert sorted(request.path.rpartition("/")[2] for request in registry.requests) == sorted(tags)


async def test_few_requests_are_in_flight_for_one_host(session: aiohttp.ClientSession, registry: LocalRegistry) -> None:
    """A registry never sees more requests at once than the limit allows."""
    client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: registry.url}, limits=Limits(per_host=3))
    registry.push(BASE.repository, BASE.tag, INDEX)
    in_flight, most = 0, 0

    async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal in_flight, most
        in_flight += 1
        most = max(most, in_flight)
        await asyncio.sleep(0.01)
        in_flight -= 1
        return await handler(request)

    registry.fail_next("HEAD", "", watch, times=20)
    await asyncio.gather(*(client.current(BASE) for _ in range(20)))
    assert most == 3


# Documents by digest


async def test_an_index_names_a_child_for_each_platform(client: OciRegistry, registry: LocalRegistry) -> None:
    """Children are found by platform; attestations and other things without one are left out."""
    attestation = make_image([LAYER], platform=ATTESTATION)
    windows = [
        make_image([LAYER], platform=WINDOWS, labels={"os.version": version}) for version in ("1809", "ltsc2022")
    ]
    index = make_index([*INDEX.children, attestation, *windows], annotations={"purpose": "test"})
    registry.push(BASE.repository, BASE.tag, index)
    manifest = await client.contents(BASE).manifest(index.digest)
    assert manifest.digest == index.digest
    assert manifest.config is None
    assert manifest.annotations == {"purpose": "test"}
    linux, arm = INDEX.children
    assert manifest.children == {
        LINUX_AMD64: linux.digest,
        ImagePlatform("linux", "arm64"): arm.digest,
        WINDOWS: windows[0].digest,
    }


async def test_child_without_a_platform_is_left_out(client: OciRegistry, registry: LocalRegistry) -> None:
    """A platform is optional in an index; a child without one cannot be chosen."""
    document = json.dumps({"schemaVersion": 2, "manifests": [{"digest": IMAGE.digest}]}).encode()
    serve(registry, {digest_of(document): (document, OCI_INDEX)})
    assert (await client.contents(BASE).manifest(digest_of(document))).children == {}


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
async def test_an_image_leads_to_its_labels_and_layers(
    client: OciRegistry, registry: LocalRegistry, docker: bool
) -> None:
    """A manifest names its configuration, which has labels, layers (bottom first) and platform."""
    second = make_layer({"app": "shop"}, docker=docker)
    image = make_image([LAYER, second], labels={"a": "b"}, platform=LINUX_ARM64, docker=docker)
    registry.push(BASE.repository, BASE.tag, image)
    contents = client.contents(BASE)
    manifest = await contents.manifest(image.digest)
    assert manifest.children is None
    assert manifest.config is not None
    config = await contents.config(manifest.config)
    assert config.labels == {"a": "b"}
    assert config.diff_ids == (LAYER.diff_id, second.diff_id)
    assert config.platform == LINUX_ARM64


async def test_no_labels_at_all_is_no_problem(client: OciRegistry, registry: LocalRegistry) -> None:
    """Docker writes null where an image has no labels."""
    image = make_image([LAYER])
    registry.push(BASE.repository, BASE.tag, image)
    assert image.config is not None
    assert (await client.contents(BASE).config(image.config.digest)).labels == {}


async def test_documents_are_read_once_for_ever(
    session: aiohttp.ClientSession, registry: LocalRegistry, cache: MemoryCache
) -> None:
    """What was read by digest is never asked for again, not even by the next process."""
    registry.push(BASE.repository, BASE.tag, INDEX)
    for _ in range(2):
        client = OciRegistry(session, cache, mirrors={BASE.registry: registry.url})
        await client.contents(BASE).manifest(INDEX.digest)
    assert registry.count("GET") == 1


async def test_simultaneous_readers_share_one_request(client: OciRegistry, registry: LocalRegistry) -> None:
    """Ten images on one base read its index once, also when one of them gives up."""
    registry.push(BASE.repository, BASE.tag, INDEX)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def hold(request: web.Request, handler: Handler) -> web.StreamResponse:
        arrived.set()
        await go_on.wait()
        return await handler(request)

    registry.fail_next("GET", "", hold)
    readers = [asyncio.create_task(client.contents(BASE).manifest(INDEX.digest)) for _ in range(10)]
    await asyncio.wait_for(arrived.wait(), 5)
    readers[0].cancel()
    go_on.set()
    manifests = await asyncio.gather(*readers[1:])
    assert {manifest.digest for manifest in manifests} == {INDEX.digest}
    assert registry.count("GET") == 1


async def test_bytes_with_another_digest_are_refused(
    client: OciRegistry, registry: LocalRegistry, cache: MemoryCache
) -> None:
    """A document that is not what its digest says is neither used nor remembered."""
    serve(registry, {INDEX.digest: (IMAGE.manifest.content, OCI_MANIFEST)})
    with pytest.raises(PeerUnavailable, match=r"answered nonsense .* have another digest"):
        await client.contents(BASE).manifest(INDEX.digest)
    assert cache.documents == {}


NONSENSE = {
    "nothing": b"",
    "html": b"<html>",
    "list": b"[]",
    "empty object": b"{}",
    "null": b"null",
    "not utf-8": b'{"manifests": "\xff"}',
    "deep": b"[" * 100_000,
    "index and image": json.dumps({"manifests": [], "config": {"digest": IMAGE.digest}}).encode(),
    "manifests that are none": b'{"manifests": [1, 2]}',
    "digest that is none": b'{"config": {"digest": "sha256:../../etc"}}',
    "annotation that is no text": json.dumps({"manifests": [], "annotations": {"a": {}}}).encode(),
    "schema 1": b'{"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws", "manifests": []}',
    "platform without architecture": json.dumps(
        {"manifests": [{"digest": IMAGE.digest, "platform": {"os": "linux"}}]}
    ).encode(),
}


@pytest.mark.parametrize("document", NONSENSE.values(), ids=NONSENSE.keys())
async def test_malformed_manifests_are_nonsense(client: OciRegistry, registry: LocalRegistry, document: bytes) -> None:
    """Whatever a registry sends instead of a manifest ends as one plain reason."""
    serve(registry, {digest_of(document): (document, OCI_INDEX)})
    with pytest.raises(PeerUnavailable, match=r"^mcr\.microsoft\.com answered nonsense \(") as caught:
        await client.contents(BASE).manifest(digest_of(document))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"{}", b'{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["no"]}}'],
    ids=["nothing", "list", "empty object", "diff id that is none"],
)
async def test_malformed_configurations_are_nonsense(
    client: OciRegistry, registry: LocalRegistry, document: bytes
) -> None:
    """A configuration that cannot be read is a reason, not a crash."""
    registry.storage.put_blob(document)
    with pytest.raises(PeerUnavailable, match="answered nonsense"):
        await client.contents(BASE).config(digest_of(document))


async def test_documents_have_a_size_limit(client: OciRegistry, registry: LocalRegistry) -> None:
    """More than 4 MiB is not read as a manifest."""
    document = b" " * (MANIFEST_LIMIT + 1)
    serve(registry, {digest_of(document): (document, OCI_INDEX)})
    with pytest.raises(PeerUnavailable, match=r"answered nonsense \(more than 4194304 bytes\)"):
        await client.contents(BASE).manifest(digest_of(document))


# Refusals


async def test_a_missing_tag_is_said_to_be_missing(client: OciRegistry) -> None:
    """404 says which tag the registry does not have."""
    with pytest.raises(NotFound, match=r"^mcr\.microsoft\.com has no dotnet/sdk:6\.0-bullseye-slim$"):
        await client.current(BASE)


async def test_a_missing_document_is_said_to_be_missing(client: OciRegistry) -> None:
    """404 says which digest the registry does not have."""
    with pytest.raises(NotFound, match=rf"^mcr\.microsoft\.com has no dotnet/sdk@{INDEX.digest.short}$"):
        await client.contents(BASE).manifest(INDEX.digest)


async def test_forbidden_is_a_refusal(client: OciRegistry, registry: LocalRegistry, pauses: Pauses) -> None:
    """403 is not asked again."""
    registry.fail_next("HEAD", "", answering(403))
    with pytest.raises(PeerRefused, match=r"refused dotnet/sdk:6\.0-bullseye-slim: 403 \(forbidden\)$"):
        await client.current(BASE)
    assert pauses.seconds == []


# Overload and trouble on the way


async def test_a_short_retry_after_is_waited_for(client: OciRegistry, registry: LocalRegistry, pauses: Pauses) -> None:
    """429 with Retry-After in seconds is repeated after just that time."""
    registry.push(BASE.repository, BASE.tag, INDEX)
    registry.fail_next("HEAD", "", answering(429, headers={"Retry-After": "7"}))
    assert await client.current(BASE) == INDEX.digest
    assert pauses.seconds == [7]
    assert client.requests == 2


async def test_a_retry_after_date_is_read_by_the_clock_of_the_registry(
    client: OciRegistry, registry: LocalRegistry, pauses: Pauses
) -> None:
    """A date is compared with the answer's own Date, so a clock that is years off does not matter."""
    registry.push(BASE.repository, BASE.tag, INDEX)
    now = datetime(2019, 7, 1, tzinfo=UTC)
    headers = {"Date": http_date(now), "Retry-After": http_date(now + timedelta(seconds=4))}
    registry.fail_next("HEAD", "", answering(503, headers=headers))
    assert await client.current(BASE) == INDEX.digest
    assert pauses.seconds == [4]


@pytest.mark.parametrize("told", ["soon", "", "-3", "99999999999999999999", "Mon, 99 Foo 2019 00:00:00 GMT"])
async def test_an_unreadable_retry_after_is_not_told(
    client: OciRegistry, registry: LocalRegistry, pauses: Pauses, told: str
) -> None:
    """Without a time that makes sense the pause is ours: random, and short."""
    registry.push(BASE.repository, BASE.tag, INDEX)
    registry.fail_next("HEAD", "", answering(429, headers={"Retry-After": told}), times=2)
    assert await client.current(BASE) == INDEX.digest
    first, second = pauses.seconds
    assert 0.5 <= first <= 1.5
    assert 0.5 <= second <= 4.5


async def test_a_long_retry_after_is_not_waited_for(
    client: OciRegistry, registry: LocalRegistry, pauses: Pauses
) -> None:
    """Nobody waits minutes inside a check: it gives up at once and says when to come back."""
    registry.fail_next("HEAD", "", answering(429, headers={"Retry-After": "120"}))
    with pytest.raises(PeerUnavailable, match=r"^mcr\.microsoft\.com answered 429 \(too many requests\)$") as caught:
        await client.current(BASE)
    assert caught.value.retry_after_s == 120
    assert pauses.seconds == []
    assert registry.count("HEAD") == 1


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (answering(429), r"answered 429 \(too many requests\)"),
        (answering(500), r"answered 500 \(internal server error\)"),
        (answering(599), "answered 599"),
    ],
    ids=["429", "500", "599"],
)
async def test_three_tries_are_enough(
    client: OciRegistry, registry: LocalRegistry, pauses: Pauses, how: Any, reason: str
) -> None:
    """A registry in trouble is asked three times, then the reason is given."""
    registry.fail_next("HEAD", "", how, times=9)
    with pytest.raises(PeerUnavailable, match=rf"^mcr\.microsoft\.com {reason}$"):
        await client.current(BASE)
    assert registry.count("HEAD") == client.requests == 3
    assert len(pauses.seconds) == 2


async def test_a_registry_that_hangs_is_given_up(
    session: aiohttp.ClientSession, registry: LocalRegistry, pauses: Pauses
) -> None:
    """Each try has a time limit, which the reason names."""
    limits = Limits(total_s=0.2)
    client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: registry.url}, limits=limits, sleep=pauses)
    registry.fail_next("HEAD", "", hang, times=3)
    with pytest.raises(PeerUnavailable, match=r"^mcr\.microsoft\.com did not answer within 0\.2 s$"):
        await client.current(BASE)
    assert registry.count("HEAD") == client.requests == 3


async def test_a_broken_answer_is_asked_for_again(client: OciRegistry, registry: LocalRegistry) -> None:
    """A connection that breaks in the middle of a document costs one more request."""
    registry.push(BASE.repository, BASE.tag, INDEX)
    registry.fail_next("GET", "", cut_short)
    assert (await client.contents(BASE).manifest(INDEX.digest)).digest == INDEX.digest
    assert registry.count("GET") == 2


async def test_an_answer_that_always_breaks_is_a_reason(client: OciRegistry, registry: LocalRegistry) -> None:
    """A registry that never gets to the end of its answer is unavailable."""
    registry.fail_next("GET", "", cut_short, times=3)
    with pytest.raises(PeerUnavailable, match=r"broke off its answer$"):
        await client.contents(BASE).manifest(INDEX.digest)


async def test_a_registry_that_is_down_is_a_reason(session: aiohttp.ClientSession, pauses: Pauses) -> None:
    """A refused connection names the address that was tried, since it may be a mirror's."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: f"http://127.0.0.1:{port}"}, sleep=pauses)
    reason = rf"^mcr\.microsoft\.com could not be reached at 127\.0\.0\.1:{port} \(connection refused\)$"
    with pytest.raises(PeerUnavailable, match=reason):
        await client.current(BASE)


async def test_what_is_not_http_is_nonsense(session: aiohttp.ClientSession, pauses: Pauses) -> None:
    """A port where something else listens is a reason, not a crash."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.contoso.example ESMTP\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    mirror = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: mirror}, sleep=pauses)
    async with server:
        with pytest.raises(PeerUnavailable, match="answered nonsense"):
            await client.current(BASE)


# Tokens


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[LocalRegistry]:
    async with LocalRegistry(tmp_path / "guarded", require_token=True) as registry:
        registry.push(BASE.repository, BASE.tag, INDEX)
        yield registry


async def test_an_anonymous_token_is_fetched_when_asked_for(
    session: aiohttp.ClientSession, guarded: LocalRegistry
) -> None:
    """A registry that wants a token gets one for the repository, and the next question already has it."""
    client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: guarded.url})
    assert await client.current(BASE) == INDEX.digest
    assert [request.path for request in guarded.requests] == [
        "/v2/dotnet/sdk/manifests/6.0-bullseye-slim",
        "/token",
        "/v2/dotnet/sdk/manifests/6.0-bullseye-slim",
    ]
    assert await client.current(BASE) == INDEX.digest
    assert len(guarded.requests) == client.requests == 4
    (token,) = guarded.tokens
    assert token.startswith("repository:dotnet/sdk:pull-")


async def test_many_questions_share_one_token(session: aiohttp.ClientSession, guarded: LocalRegistry) -> None:
    """Questions that are refused at the same time fetch one token between them."""
    client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: guarded.url})
    await asyncio.gather(*(client.current(BASE) for _ in range(10)))
    assert guarded.count("GET", "/token") == 1


async def test_a_late_refusal_uses_the_token_that_is_there(
    session: aiohttp.ClientSession, guarded: LocalRegistry
) -> None:
    """A question whose refusal comes after another one's handshake needs none of its own."""
    client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: guarded.url})
    arrived, go_on = asyncio.Event(), asyncio.Event()
    challenge = {"WWW-Authenticate": f'Bearer realm="{guarded.url}/token",service="local",scope="x"'}

    async def refuse_late(request: web.Request, handler: Handler) -> web.StreamResponse:
        arrived.set()
        await go_on.wait()
        return await answering(401, headers=challenge)(request, handler)

    guarded.fail_next("HEAD", "", refuse_late)
    late = asyncio.create_task(client.current(BASE))
    await asyncio.wait_for(arrived.wait(), 5)
    await client.current(BASE)
    go_on.set()
    assert await late == INDEX.digest
    assert guarded.count("GET", "/token") == 1


async def test_each_repository_has_a_token_of_its_own(session: aiohttp.ClientSession, guarded: LocalRegistry) -> None:
    """A token is sent only for the repository it was made for."""
    client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: guarded.url})
    other = replace(BASE, repository="dotnet/aspnet")
    guarded.push(other.repository, other.tag, INDEX)
    await client.current(BASE)
    await client.current(other)
    assert sorted(token.rpartition("-pull")[0] or token.split("-")[0] for token in guarded.tokens) == [
        "repository:dotnet/aspnet:pull",
        "repository:dotnet/sdk:pull",
    ]


async def test_a_token_that_expired_is_not_sent(session: aiohttp.ClientSession, guarded: LocalRegistry) -> None:
    """After its lifetime a token is fetched anew."""
    now = 1000.0
    client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: guarded.url}, now=lambda: now)
    await client.current(BASE)
    now += 301
    await client.current(BASE)
    assert "Authorization" not in guarded.requests[3].headers
    assert guarded.count("GET", "/token") == 2


async def test_a_token_that_was_revoked_is_renewed_once(session: aiohttp.ClientSession, guarded: LocalRegistry) -> None:
    """A token that is refused before its time costs one more handshake."""
    client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: guarded.url})
    await client.current(BASE)
    guarded.tokens.clear()
    assert await client.current(BASE) == INDEX.digest
    assert guarded.count("GET", "/token") == 2


async def test_a_new_token_that_is_refused_is_a_refusal(session: aiohttp.ClientSession, guarded: LocalRegistry) -> None:
    """The handshake is not repeated for ever."""
    client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: guarded.url})
    guarded.fail_next("GET", "/token", answering(200, body=b'{"access_token": "of-somebody-else"}'))
    with pytest.raises(PeerRefused, match=r"refused dotnet/sdk:6\.0-bullseye-slim: 401 \(unauthorized\)$"):
        await client.current(BASE)
    assert guarded.count("GET", "/token") == 1


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (answering(403), PeerRefused, r"gave no token for .*: 403 \(forbidden\)"),
        (answering(200, body=b"<html>"), PeerUnavailable, "the token service of .* answered nonsense"),
        (answering(200, body=b"{}"), PeerUnavailable, "the token service of .* answered nonsense"),
        (answering(200, body=b'{"token": "a\\r\\nb"}'), PeerUnavailable, "the token service of .* answered nonsense"),
    ],
    ids=["refused", "html", "no token", "line break"],
)
async def test_a_token_service_may_fail(
    session: aiohttp.ClientSession, guarded: LocalRegistry, answer: Any, kind: type[Exception], reason: str
) -> None:
    """What goes wrong at the token service is told as its fault."""
    client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: guarded.url})
    guarded.fail_next("GET", "/token", answer)
    with pytest.raises(kind, match=reason):
        await client.current(BASE)


@pytest.mark.parametrize(
    "headers", [{}, {"WWW-Authenticate": 'Basic realm="contoso"'}, {"WWW-Authenticate": "Bearer"}], ids=str
)
async def test_a_registry_that_wants_a_password_is_refused(
    client: OciRegistry, registry: LocalRegistry, headers: Mapping[str, str]
) -> None:
    """Only anonymous tokens are known; anything else is said plainly."""
    registry.fail_next("HEAD", "", answering(401, headers=headers))
    with pytest.raises(PeerRefused, match="asks for a password"):
        await client.current(BASE)


# Other hosts


class OneHost(AbstractResolver):
    """Finds every host at 127.0.0.1, or none, and notes which were asked for."""

    def __init__(self, *, known: bool) -> None:
        self.asked: list[str] = []
        self._known = known

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if not self._known:
            raise OSError(None, "no such host")
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def test_a_token_is_not_fetched_in_the_clear(tmp_path: Path) -> None:
    """A registry on another machine cannot send us to a token service without TLS."""
    host = "registry.contoso.example"
    served, trusting = certificate(tmp_path, host)
    challenge = {"WWW-Authenticate": 'Bearer realm="http://127.0.0.1/token",service="s",scope="x"'}
    connector = aiohttp.TCPConnector(resolver=OneHost(known=True), ssl=trusting)
    async with LocalRegistry(tmp_path, tls=served) as registry, aiohttp.ClientSession(connector=connector) as session:
        mirror = registry.url.replace("127.0.0.1", host)
        client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: mirror})
        registry.fail_next("HEAD", "", answering(401, headers=challenge))
        with pytest.raises(PeerRefused, match="wants its token fetched without TLS"):
            await client.current(BASE)
        assert registry.count("GET") == 0


async def test_a_certificate_that_is_not_trusted_is_a_refusal(
    tmp_path: Path, session: aiohttp.ClientSession, pauses: Pauses
) -> None:
    """TLS to the wrong machine is not tried three times."""
    served, _ = certificate(tmp_path, "127.0.0.1")
    async with LocalRegistry(tmp_path, tls=served) as registry:
        client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: registry.url}, sleep=pauses)
        with pytest.raises(PeerRefused, match="has a certificate that is not trusted"):
            await client.current(BASE)
        assert pauses.seconds == []


async def test_docker_hub_is_asked_where_it_answers(pauses: Pauses) -> None:
    """References to docker.io go to the host that serves them, over TLS."""
    resolver = OneHost(known=False)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver)) as session:
        client = OciRegistry(session, MemoryCache(), sleep=pauses)
        with pytest.raises(PeerUnavailable, match=r"^docker\.io could not be reached \(no address for registry-1"):
            await client.current(ImageReference.parse("docker.io/library/debian:bookworm-slim"))
    assert set(resolver.asked) == {"registry-1.docker.io"}


async def test_a_redirect_to_another_host_does_not_carry_the_token(
    tmp_path: Path, session: aiohttp.ClientSession, guarded: LocalRegistry
) -> None:
    """Blobs may be on a data host, which gets the request but not the token."""
    client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: guarded.url})
    assert IMAGE.config is not None
    async with LocalRegistry(tmp_path / "data") as data:
        data.push(BASE.repository, None, IMAGE)
        await client.current(BASE)
        location = f"{data.url}/v2/dotnet/sdk/blobs/{IMAGE.config.digest}"
        guarded.fail_next("GET", "/blobs/", answering(307, headers={"Location": location}))
        config = await client.contents(BASE).config(IMAGE.config.digest)
    assert config.labels == {"version": "6.0.36"}
    assert "Authorization" in guarded.requests[-1].headers
    assert [("Authorization" in request.headers) for request in data.requests] == [False]
    assert client.requests == len(guarded.requests) + len(data.requests)


@pytest.mark.parametrize("mirror", ["http://mirror.contoso.example", "ftp://127.0.0.1", "mirror"])
async def test_a_mirror_on_another_machine_needs_tls(session: aiohttp.ClientSession, mirror: str) -> None:
    """Plain http is for this machine only."""
    with pytest.raises(ConfigError, match=r"the mirror of mcr\.microsoft\.com has to start with https://"):
        OciRegistry(session, MemoryCache(), mirrors={BASE.registry: mirror})


async def test_a_mirror_may_have_a_path(session: aiohttp.ClientSession, registry: LocalRegistry) -> None:
    """The base URL of a mirror is kept whole."""
    client = OciRegistry(session, MemoryCache(), mirrors={BASE.registry: f"{registry.url}/proxy/"})
    with pytest.raises(NotFound):
        await client.current(BASE)
    assert registry.requests[0].path == "/proxy/v2/dotnet/sdk/manifests/6.0-bullseye-slim"


# Helpers


def serve(registry: LocalRegistry, documents: Mapping[Digest, tuple[bytes, str]]) -> None:
    """Let the registry answer these digests with these bytes, whatever they hash to."""
    registry.resolve = lambda repository, reference: documents.get(Digest(reference))


def http_date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)
