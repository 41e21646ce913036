"""A Docker engine of its own, and the base image that is built on."""

import contextlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bot.core.images import Digest
from tests.pipelines.programs import Unavailable, program, running, wait_until_up
from tests.pipelines.registry import Registry


class Engine:
    """A Docker engine with a bridge of its own, so that published ports work as on a build agent."""

    def __init__(self, host: str) -> None:
        # DOCKER_BUILDKIT=1 makes the tests run on BuildKit, where the client can do that.
        given = {name: os.environ[name] for name in ("DOCKER_BUILDKIT",) if name in os.environ}
        self.environment = {"DOCKER_HOST": host, **given}

    def docker(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run the docker client. Raises CalledProcessError."""
        done = subprocess.run(
            ["docker", *arguments],
            env={**os.environ, **self.environment},
            input=stdin,
            check=True,
            capture_output=True,
            timeout=120,
        )
        return done.stdout.decode().strip()

    def containers(self) -> list[str]:
        """Every container there is, running or not."""
        return self.docker("ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Image}} {{.Command}}").splitlines()


@contextlib.contextmanager
def engine() -> Iterator[Engine]:
    """Start an engine. Raises Unavailable."""
    dockerd, ip = program("dockerd"), program("ip")
    program("docker")
    if os.geteuid() != 0:
        raise Unavailable("dockerd needs root")
    # Short, because the path of a socket may have a hundred characters only.
    root = Path(tempfile.mkdtemp(prefix="shipshape-"))
    log, host = root / "dockerd.log", f"unix://{root}/docker.sock"
    try:
        with _bridge(ip) as bridge:
            command = [
                dockerd,
                "--iptables=false",
                "--ip6tables=false",
                f"--bridge={bridge}",
                "--storage-driver=overlay2",
            ]
            command += [f"--data-root={root}/data", f"--exec-root={root}/exec", f"--pidfile={root}/pid", "-H", host]
            with running(command, log) as process:
                found = Engine(host)
                wait_until_up(process, lambda: _answers(found), log)
                yield found
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _answers(engine: Engine) -> bool:
    try:
        engine.docker("version")
    except subprocess.CalledProcessError:
        return False
    return True


@contextlib.contextmanager
def _bridge(ip: str) -> Iterator[str]:
    name = f"shp{os.getpid()}"
    try:
        address = _free_address(ip)
        for arguments in (["add", name, "type", "bridge"], ["set", name, "up"]):
            subprocess.run([ip, "link", *arguments], check=True, capture_output=True)
        subprocess.run([ip, "address", "add", f"{address}/24", "dev", name], check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"no network bridge can be made: {error.stderr.decode().strip()}") from None
    try:
        yield name
    finally:
        subprocess.run([ip, "link", "delete", name], check=False, capture_output=True)


def _free_address(ip: str) -> str:
    """Of a network that no other engine has, nor one that was killed and left its bridge behind."""
    shown = subprocess.run([ip, "-4", "-oneline", "address", "show"], check=True, capture_output=True).stdout.decode()
    candidates = (f"10.213.{(os.getpid() + offset) % 250}.1" for offset in range(250))
    return next(address for address in candidates if f" {address}/" not in shown)


class BaseImage:
    """Stands for Microsoft's image: a shell, a user with a number and the variables of .NET 8, but nothing of .NET."""

    ENVIRONMENT = ("APP_UID=1654", "ASPNETCORE_HTTP_PORTS=8080", "DOTNET_RUNNING_IN_CONTAINER=true", "PATH=/bin")

    def __init__(self, engine: Engine, registry: Registry, reference: str) -> None:
        self._engine, self._registry = engine, registry
        self.repository, _, self.tag = reference.rpartition(":")
        self.name = f"{registry.host}/{self.repository}"

    def publish(self, release: str) -> Digest:
        """Move the tag to a new image. Raises Unavailable."""
        changes = [f"--change=ENV {setting}" for setting in self.ENVIRONMENT]
        reference = f"{self.name}:{self.tag}"
        self._engine.docker("import", *changes, "-", reference, stdin=self._root(release))
        self._engine.docker("push", reference)
        return self._registry.tags(self.repository)[self.tag]

    def _root(self, release: str) -> bytes:
        path = program("busybox")
        busybox = Path(path).read_bytes()
        if b"/ld-linux" in busybox[:4096]:
            raise Unavailable("busybox is not the static one of busybox-static")
        applets = subprocess.run([path, "--list"], check=True, capture_output=True).stdout.decode().split()
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for folder in ("bin", "etc", "home", "home/app", "tmp"):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(entry)
            _add(archive, "bin/busybox", busybox, mode=0o755)
            _add(archive, "etc/passwd", b"root:x:0:0::/root:/bin/sh\napp:x:1654:1654::/home/app:/bin/sh\n")
            _add(archive, "etc/release", release.encode())
            for name in (*applets, "bash"):
                if name != "busybox":
                    link = tarfile.TarInfo(f"bin/{name}")
                    link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                    archive.addfile(link)
        return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
