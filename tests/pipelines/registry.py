"""Debian's docker-registry, and what it holds."""

import base64
import contextlib
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.clients.documents import MANIFEST_TYPES, digest_of
from bot.core.images import Digest
from bot.demo.image_builder import Blob, BuiltImage
from tests.pipelines.programs import free_port, program, running, wait_until_up

USER, PASSWORD = "AWS", "example-password"
# As htpasswd writes it: the password above, and the one that moto gives to `aws ecr get-login-password`.
LOGIN = "AWS:$2b$04$ZDJha7U1udDn96leVP0s4.Pm.OHmbjaYOKb/9hlyr7yjpfNLu./nm"
MOTO_PASSWORD = "123456789012-auth-token"
MOTO_LOGIN = "AWS:$2b$04$aQdwmklyA/N/v7n0DLw.xutnSKAJzAAlsok1ZYjYV55.hWQYEDrsq"


@dataclass(frozen=True)
class Registry:
    """A docker-registry on 127.0.0.1. `host` is how images name it."""

    host: str
    storage: Path
    password: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """How the scripts are told to push here."""
        login = {"REGISTRY_USERNAME": USER, "REGISTRY_PASSWORD": self.password} if self.password else {}
        return {"REGISTRY": self.host, **login}

    def tags(self, repository: str) -> dict[str, Digest]:
        """What every tag points to, by our own hash."""
        status, body = self._get(f"{repository}/tags/list")
        names = json.loads(body)["tags"] or [] if status == 200 else []
        return {name: digest_of(self._manifest(repository, name)) for name in sorted(names)}

    def versions(self, repository: str) -> dict[str, Digest]:
        """The tags that people use."""
        return {name: digest for name, digest in self.tags(repository).items() if not name.startswith("candidate-")}

    def image(self, repository: str, reference: str) -> BuiltImage:
        """Manifest and configuration, without the layers; another registry can be given it."""
        manifest = self._manifest(repository, reference)
        described = json.loads(manifest)
        status, config = self._get(f"{repository}/blobs/{described['config']['digest']}")
        assert status == 200
        return BuiltImage(
            manifest=Blob(media_type=described["mediaType"], content=manifest),
            config=Blob(media_type=described["config"]["mediaType"], content=config),
        )

    def labels(self, repository: str, reference: str) -> dict[str, str]:
        config = self.image(repository, reference).config
        assert config
        labels: dict[str, str] = json.loads(config.content)["config"]["Labels"]
        return labels

    def take(self, repository: str, tag: str, *, like: str) -> Digest:
        """Point a tag to another image: the manifest of a reference in other bytes, so with another digest."""
        manifest = json.loads(self._manifest(repository, like))
        content = json.dumps(manifest).encode()
        headers = {"Content-Type": manifest["mediaType"]}
        status, _ = self._request("PUT", f"{repository}/manifests/{tag}", headers, content)
        assert status == 201
        return digest_of(content)

    def _manifest(self, repository: str, reference: str) -> bytes:
        status, body = self._request(
            "GET", f"{repository}/manifests/{reference}", {"Accept": ", ".join(MANIFEST_TYPES)}
        )
        assert status == 200, body
        return body

    def _get(self, path: str) -> tuple[int, bytes]:
        return self._request("GET", path, {})

    def _request(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> tuple[int, bytes]:
        request = urllib.request.Request(f"http://{self.host}/v2/{path}", body, dict(headers), method=method)
        if self.password:
            login = base64.b64encode(f"{USER}:{self.password}".encode()).decode()
            request.add_header("Authorization", f"Basic {login}")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@contextlib.contextmanager
def registry(
    folder: Path, *, storage: Path | None = None, login: str = "", read_only: bool = False
) -> Iterator[Registry]:
    """Start a registry. Raises Unavailable."""
    path, port = program("docker-registry"), free_port()
    folder.mkdir(parents=True)
    storage = storage or folder / "storage"
    maintenance = {"maintenance": {"readonly": {"enabled": True}}} if read_only else {}
    config: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(storage)}, **maintenance},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if login:
        (folder / "htpasswd").write_text(f"{login}\n")
        config["auth"] = {"htpasswd": {"realm": "ecr", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(json.dumps(config))
    with running([path, "serve", str(folder / "config.yml")], folder / "log") as process:
        wait_until_up(process, lambda: _listens(port), folder / "log")
        yield Registry(f"127.0.0.1:{port}", storage)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
