"""A PostgreSQL of its own for the tests, from the binaries that Debian installs; it needs no account and no port."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

STARTING_S = 30
USER = "shipshape"
_names = count(1)


class NotHere(Exception):
    """PostgreSQL cannot be started; the text says why."""


class PostgreSql:
    """A running server. `url` is the database it came with; `fresh` makes an empty one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = self._url("postgres")

    async def execute(self, statement: str) -> None:
        """Run a statement in the database it came with."""
        engine = create_async_engine(self.url, isolation_level="AUTOCOMMIT")
        try:
            async with engine.connect() as connection:
                await connection.execute(text(statement))
        finally:
            await engine.dispose()

    async def fresh(self) -> str:
        """The URL of a new database."""
        name = f"test{next(_names)}"
        await self.execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql+asyncpg://{USER}@/{database}?host={self._folder}"


@contextmanager
def running() -> Iterator[PostgreSql]:
    """Start a server in a folder that is removed afterwards. Raises NotHere."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not binaries:
        raise NotHere("PostgreSQL is not installed (Debian package postgresql)")
    folder, user = Path(tempfile.mkdtemp(prefix="shipshape-pg-")), _user()
    try:
        if user:
            shutil.chown(folder, user)
        with _server(binaries[-1].parent, folder, user) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> str | None:
    """Whom the server runs as: it refuses to be root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextmanager
def _server(binaries: Path, folder: Path, user: str | None) -> Iterator[PostgreSql]:
    data = folder / "data"
    initdb = [binaries / "initdb", "-D", data, "-U", USER, "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"]
    options = ("listen_addresses=", f"unix_socket_directories={folder}", "fsync=off", "shared_buffers=16MB")
    postgres = [binaries / "postgres", "-D", data, *(f"--{option}" for option in options)]
    try:
        subprocess.run(
            list(map(str, initdb)), user=user, cwd=folder, check=True, capture_output=True, timeout=STARTING_S
        )
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(list(map(str, postgres)), user=user, cwd=folder, stdout=log, stderr=log)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotHere(f"PostgreSQL does not start here: {error}") from error
    try:
        _wait([str(binaries / "pg_isready"), "--quiet", "--host", str(folder)], server, folder / "log")
        yield PostgreSql(folder)
    finally:
        server.send_signal(signal.SIGINT)  # at once, even with a connection left open
        try:
            server.wait(5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(is_ready: list[str], server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + STARTING_S
    while server.poll() is None and time.monotonic() < end:
        if subprocess.run(is_ready, check=False).returncode == 0:
            return
        time.sleep(0.05)
    raise NotHere(f"PostgreSQL does not start here: {log.read_text('utf-8', 'replace')[-500:]}")
