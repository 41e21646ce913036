"""How long 200 base images take to be looked up, beside plain HEAD requests: `python bench/check_200.py`.

The registry is a process of its own and answers after 50 ms. Both sides have 16 requests in flight; the best of five.
"""

import asyncio
import multiprocessing
import tempfile
import time
from collections.abc import Awaitable, Callable
from multiprocessing.connection import Connection
from pathlib import Path

import aiohttp

from bot.clients.documents import MANIFEST_TYPES
from bot.clients.http import Limits, open_session
from bot.clients.oci import OciRegistry
from bot.core.images import Digest, ImageReference
from bot.demo.image_builder import make_image, make_layer
from bot.demo.registry import LocalRegistry

BASES, LATENCY_S, IN_FLIGHT, ROUNDS = 200, 0.05, 16, 5
REFERENCES = [ImageReference.parse(f"mcr.microsoft.com/dotnet/sdk:6.0.{number}") for number in range(BASES)]


class NoCache:
    """A `DocumentCache` that is never asked: looking up tags reads no documents."""

    async def get(self, digest: Digest) -> bytes | None:
        raise NotImplementedError

    async def put(self, digest: Digest, content: bytes) -> None:
        raise NotImplementedError


async def serve(connection: Connection) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with LocalRegistry(Path(folder)) as registry:
            image = make_image([make_layer({"name": "base"})])
            registry.push("dotnet/sdk", None, image)
            registry.resolve = lambda repository, tag: (image.manifest.content, image.manifest.media_type)
            registry.latency_s = LATENCY_S
            connection.send(registry.url)
            await asyncio.to_thread(connection.recv)
            connection.send(len(registry.requests))


def serve_until_told(connection: Connection) -> None:
    asyncio.run(serve(connection))


async def plain_heads(url: str) -> None:
    """What any client has to do at least."""
    headers = {"Accept": ", ".join(MANIFEST_TYPES)}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:

        async def head(reference: ImageReference) -> str:
            manifest = f"{url}/v2/{reference.repository}/manifests/{reference.tag}"
            async with session.head(manifest, headers=headers) as response:
                return response.headers["Docker-Content-Digest"]

        await asyncio.gather(*map(head, REFERENCES))


async def our_lookups(url: str) -> None:
    """What a check does."""
    limits = Limits(per_host=IN_FLIGHT)
    async with open_session(limits) as session:
        registry = OciRegistry(session, NoCache(), mirrors={"mcr.microsoft.com": url}, limits=limits)
        await asyncio.gather(*map(registry.current, REFERENCES))
        assert registry.requests == BASES


async def best_of(lookups: Callable[[str], Awaitable[None]], url: str) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        await lookups(url)
        times.append(time.perf_counter() - start)
    return min(times)


async def main(connection: Connection) -> None:
    url = connection.recv()
    plain, ours = await best_of(plain_heads, url), await best_of(our_lookups, url)
    connection.send("stop")
    requests = connection.recv()
    print(f"plain HEADs   {plain:.2f} s")
    print(f"OciRegistry   {ours:.2f} s   {ours / plain:.2f} x, limit 1.20 x")
    print(f"requests      {requests / ROUNDS / 2 / BASES:g} for each base")


if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve_until_told, args=(theirs,))
    server.start()
    asyncio.run(main(ours))
    server.join()
