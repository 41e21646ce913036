"""The registry client and the image builder against Debian's docker-registry, and the local registry beside it."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from bot.clients.documents import MANIFEST_TYPES, OCI_MANIFEST
from bot.clients.http import Limits, open_session
from bot.clients.oci import OciRegistry
from bot.core.images import ImageReference
from bot.demo.image_builder import LINUX_AMD64, make_image, make_index, make_layer
from bot.demo.registry import LocalRegistry
from bot.errors import NotFound
from tests.peers.registry import BASE, LINUX_ARM64, MemoryCache, push_over_http

DOCKER_REGISTRY = shutil.which("docker-registry")
DEADLINE_S = 10.0
CONFIG = """
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""

LAYER = make_layer({"etc/os-release": "ID=debian\n"})
IMAGE = make_image([LAYER, make_layer({"app": "shop"})], labels={"version": "6.0.36"}, annotations={"a": "b"})
INDEX = make_index([IMAGE, make_image([LAYER], platform=LINUX_ARM64)])


@asynccontextmanager
async def debian(folder: Path) -> AsyncIterator[str]:
    """The address of a docker-registry that ends with the block."""
    assert DOCKER_REGISTRY is not None
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    config = folder / "config.yml"
    config.write_text(CONFIG.format(root=folder, port=port))
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(DOCKER_REGISTRY, "serve", str(config), stdout=quiet, stderr=quiet)
    try:
        await asyncio.wait_for(listening(process, port), DEADLINE_S)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def listening(process: asyncio.subprocess.Process, port: int) -> None:
    while True:
        assert process.returncode is None, "docker-registry ended by itself"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)
        else:
            writer.close()
            await writer.wait_closed()
            return


@asynccontextmanager
async def local(folder: Path) -> AsyncIterator[str]:
    async with LocalRegistry(folder) as registry:
        yield registry.url


@pytest.fixture(
    params=[
        "local",
        pytest.param(
            "debian",
            marks=pytest.mark.skipif(DOCKER_REGISTRY is None, reason="the Debian package docker-registry is missing"),
        ),
    ]
)
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """Both registries have to pass the same tests, or the local one would teach us something false."""
    async with {"local": local, "debian": debian}[request.param](tmp_path) as url:
        yield url


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session(Limits()) as session:
        yield session


@pytest.fixture
def client(session: aiohttp.ClientSession, url: str) -> OciRegistry:
    return OciRegistry(session, MemoryCache(), mirrors={BASE.registry: url})


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
async def test_an_image_is_read_back_as_it_was_built(
    session: aiohttp.ClientSession, client: OciRegistry, url: str, docker: bool
) -> None:
    """Tag, index, child and configuration come back with the digests of our own builder."""
    image = make_image([LAYER], labels={"version": "6.0.36"}, docker=docker)
    index = make_index([image, make_image([LAYER], platform=LINUX_ARM64, docker=docker)], docker=docker)
    await push_over_http(session, url, BASE.repository, BASE.tag, index)
    assert await client.current(BASE) == index.digest
    contents = client.contents(BASE)
    children = (await contents.manifest(index.digest)).children
    assert children is not None
    assert children[LINUX_AMD64] == image.digest
    manifest = await contents.manifest(image.digest)
    assert manifest.config is not None
    config = await contents.config(manifest.config)
    assert (config.labels, config.diff_ids) == ({"version": "6.0.36"}, (LAYER.diff_id,))


async def test_a_tag_that_moves_has_another_digest(
    session: aiohttp.ClientSession, client: OciRegistry, url: str
) -> None:
    """Pushing another image under a tag is seen at once; the old one is still there by digest."""
    await push_over_http(session, url, BASE.repository, BASE.tag, IMAGE)
    assert await client.current(BASE) == IMAGE.digest
    await push_over_http(session, url, BASE.repository, BASE.tag, INDEX)
    assert await client.current(BASE) == INDEX.digest
    assert (await client.contents(BASE).manifest(IMAGE.digest)).annotations == {"a": "b"}


async def test_what_is_missing_is_not_found(session: aiohttp.ClientSession, client: OciRegistry, url: str) -> None:
    """Missing repository, tag, manifest and blob are all told as missing."""
    with pytest.raises(NotFound):
        await client.current(BASE)
    await push_over_http(session, url, BASE.repository, BASE.tag, IMAGE)
    with pytest.raises(NotFound, match=r"has no dotnet/sdk:7\.0$"):
        await client.current(replace(BASE, tag="7.0"))
    with pytest.raises(NotFound):
        await client.contents(BASE).manifest(INDEX.digest)
    with pytest.raises(NotFound):
        await client.contents(BASE).config(INDEX.digest)


@pytest.mark.parametrize(
    ("accept", "status"), [(OCI_MANIFEST, 404), (", ".join(MANIFEST_TYPES), 200)], ids=["image only", "all types"]
)
async def test_an_index_needs_an_accept_that_names_it(
    session: aiohttp.ClientSession, url: str, accept: str, status: int
) -> None:
    """Why all four types are sent: without the index types, an index is not there."""
    await push_over_http(session, url, BASE.repository, BASE.tag, INDEX)
    manifest = f"{url}/v2/{BASE.repository}/manifests/{BASE.tag}"
    async with session.head(manifest, headers={"Accept": accept}) as response:
        assert response.status == status


async def test_tags_are_listed_in_pages(session: aiohttp.ClientSession, url: str) -> None:
    """Following the Link header leads to all tags. docker-registry 2.8 has them on one page, in any order."""
    for tag in ("a", "b", "c"):
        await push_over_http(session, url, BASE.repository, tag, IMAGE)
    tags: list[str] = []
    page = f"{url}/v2/{BASE.repository}/tags/list?n=2"
    while page:
        async with session.get(page) as response:
            tags += (await response.json())["tags"]
            page = str(response.links["next"]["url"]) if "next" in response.links else ""
    assert sorted(tags) == ["a", "b", "c"]


async def test_a_wrong_digest_is_not_taken(session: aiohttp.ClientSession, url: str) -> None:
    """What is uploaded has to be what its digest names."""
    reference = ImageReference.parse(f"mcr.microsoft.com/dotnet/sdk@{INDEX.digest}")
    await push_over_http(session, url, reference.repository, "a", IMAGE)
    manifest = f"{url}/v2/{reference.repository}/manifests/{reference.digest}"
    headers = {"Content-Type": IMAGE.manifest.media_type}
    async with session.put(manifest, data=IMAGE.manifest.content, headers=headers) as response:
        assert response.status == 400
