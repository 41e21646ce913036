"""A local ECR: moto answers the API, and a local registry keeps the images.

The registry's folder is the truth, under `ACCOUNT/REPOSITORY`; what moto has is made from it, so a restart loses
nothing. moto's state belongs to the process: there can be only one of these at a time.

Whatever happens here is told to the queues that were opened, as a rule of EventBridge would.
"""

import asyncio
import json
import os
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult
from moto.ecr.models import Image, ecr_backends
from moto.ecr.responses import ECRResponse
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sqs.models import sqs_backends
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from bot.clients.documents import OCI_MANIFEST
from bot.core.images import Digest
from bot.demo.image_builder import Blob, BuiltImage
from bot.demo.registry import LocalRegistry

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalScan:
    """What ECR says of the scan of an image, with findings in its own words; never scanned without a status.

    `page` is how many of them one answer has.
    """

    status: str = "COMPLETE"
    findings: tuple[dict[str, Any], ...] = ()
    enhanced: tuple[dict[str, Any], ...] = ()
    completed_at: datetime | None = None
    page: int = 1000


class LocalEcr:
    """ECR of one account and region on 127.0.0.1 while entered; `url` is known then. `registry` has to outlive it.

    `calls` has the name of every operation that was asked for, in order. Repositories in `immutable` keep their tags.
    `scans` has the scan of a version tag; what has none was scanned and nothing was found.
    """

    def __init__(
        self, registry: LocalRegistry, *, account: str = "123456789012", region: str = "eu-west-1", port: int = 0
    ) -> None:
        self.url = ""
        self.account, self.region = account, region
        self.calls: list[str] = []
        self.immutable: set[str] = set()
        self.scans: dict[str, LocalScan] = {}
        self._registry, self._port = registry, port
        self._queues: set[str] = set()
        self._failures: list[_Failure] = []

    async def __aenter__(self) -> Self:
        ECRResponse.get_download_url_for_layer = _layer_urls(self._registry)  # type: ignore[method-assign, assignment]
        ECRResponse.put_image = self._put_image()  # type: ignore[method-assign, assignment]
        ECRResponse.describe_image_scan_findings = self._describe_scan()  # type: ignore[method-assign, assignment]
        ECRResponse.start_image_scan = self._start_scan()  # type: ignore[method-assign, assignment]
        self.restore()
        sqs_backends[self.account][self.region].reset()
        # moto's own ThreadedMotoServer takes half a second to stop and leaves its socket open.
        self._moto = DomainDispatcherApplication(create_backend_app)
        handler = MotoRequestHandler
        self._server = make_server("127.0.0.1", self._port, self._meet, threaded=True, request_handler=handler)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._server.shutdown)
        await asyncio.to_thread(self._thread.join)

    def environment(self) -> dict[str, str]:
        """What boto3 has to find in its environment to talk to this ECR, and to nothing else."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def open_queue(self, name: str = "ecr-events", **attributes: Any) -> str:
        """A queue of moto's SQS for this ECR's events, empty and as it is after CreateQueue; its URL."""
        sqs_backends[self.account][self.region].create_queue(name, region=self.region, **attributes)
        self._queues.add(name)
        return f"{self.url}/{self.account}/{name}"

    def send(self, queue_url: str, body: str) -> None:
        """Put a message into a queue."""
        sqs_backends[self.account][self.region].send_message(queue_url.rpartition("/")[2], body)

    def messages(self, queue_url: str) -> int:
        """How many messages a queue has, also those that somebody received and has not deleted."""
        queue = sqs_backends[self.account][self.region].get_queue(queue_url.rpartition("/")[2])
        return len(queue._messages)

    def publish(self, repository: str, tags: Iterable[str], image: BuiltImage) -> Digest:
        """Push an image under these tags, as a pipeline would. The repository is made when it is missing."""
        name = f"{self.account}/{repository}"
        self._registry.push(name, None, image)
        names = list(tags)
        for tag in names:
            self._registry.move(name, tag, image.digest)
        self._show(repository)
        for tag in names:
            self._tell("PUSH", repository, image.digest, tag)
        return image.digest

    def delete_tag(self, repository: str, tag: str) -> None:
        """Take a tag away, as BatchDeleteImage does; the image stays until it has none."""
        name = f"{self.account}/{repository}"
        digest = self._registry.storage.tags(name)[tag]
        self._registry.storage.untag(name, tag)
        self._show(repository)
        self._tell("DELETE", repository, digest, tag)

    def _tell(self, action: str, repository: str, digest: Digest, tag: str) -> None:
        """https://docs.aws.amazon.com/AmazonECR/latest/userguide/ecr-eventbridge.html"""
        detail = {
            "result": "SUCCESS",
            "repository-name": repository,
            "image-digest": digest,
            "action-type": action,
            "image-tag": tag,
        }
        event = {
            "version": "0",
            "id": str(uuid.uuid4()),
            "detail-type": "ECR Image Action",
            "source": "aws.ecr",
            "account": self.account,
            "time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "region": self.region,
            "resources": [],
            "detail": detail,
        }
        for name in self._queues:
            self.send(name, json.dumps(event))

    def fail_next(self, operation: str, code: str, *, status: int = 400, times: int = 1, after: int = 0) -> None:
        """Refuse the next `times` calls of an operation, such as PutImage, once `after` of them went through."""
        self._failures.append(_Failure(operation, code, status, times, after))

    def work_again(self) -> None:
        """Forget what was planned to fail."""
        self._failures.clear()

    def create_repository(self, repository: str) -> None:
        """An empty repository. It is forgotten when the process ends."""
        self._show(repository)

    def restore(self) -> None:
        """Make moto's state anew from what the registry keeps."""
        ecr_backends[self.account][self.region].reset()
        prefix = f"{self.account}/"
        for name in self._registry.storage.repositories():
            if name.startswith(prefix):
                self._show(name.removeprefix(prefix))

    def _show(self, repository: str) -> None:
        backend = ecr_backends[self.account][self.region]
        if repository not in backend.repositories:
            backend.create_repository(repository, self.account, {}, {}, "MUTABLE", [])
        # In one step: moto's threads read while we write.
        backend.repositories[repository].images = self._images(repository)

    def _images(self, repository: str) -> list[Image]:
        storage, name = self._registry.storage, f"{self.account}/{repository}"
        tags = storage.tags(name)
        images: list[Image] = []
        for digest, pushed_at in storage.manifests(name).items():
            manifest = storage.manifest(name, digest)
            assert manifest is not None
            # moto's own digests are not those of the manifest.
            image = _Image(self.account, "", manifest.content.decode(), repository, manifest.media_type, digest)
            image.image_tags = [tag for tag, target in tags.items() if target == digest]
            image.image_pushed_at = int(pushed_at)
            images.append(image)
        return images

    def _meet(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html"""
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        self.calls.append(operation)
        planned = next((failure for failure in self._failures if failure.meets(operation)), None)
        if planned is None:
            answer: Iterable[bytes] = self._moto(environ, start_response)
            return answer
        body = json.dumps({"__type": planned.code, "message": "as planned"})
        response = Response(body, status=planned.status, content_type="application/x-amz-json-1.1")
        return response(environ, start_response)

    def _scan_of(self, response: ECRResponse) -> LocalScan | None:
        """Kept apart from moto's images, which are made anew with every change. None when it was never scanned."""
        repository, digest = response._get_param("repositoryName"), response._get_param("imageId")["imageDigest"]
        tags = self._registry.storage.tags(f"{self.account}/{repository}")
        if digest not in tags.values():
            raise _Refused("ImageNotFoundException", f"{digest} does not exist")
        planned = [self.scans[tag] for tag, target in tags.items() if target == digest and tag in self.scans]
        scan = planned[0] if planned else LocalScan()
        return scan if scan.status else None

    def _describe_scan(self) -> Callable[[ECRResponse], ActionResult]:
        def describe_image_scan_findings(response: ECRResponse) -> ActionResult:
            scan = self._scan_of(response)
            if scan is None:
                raise _Refused("ScanNotFoundException", "Image scan does not exist")
            first = int(response._get_param("nextToken") or 0)
            left = len(scan.findings) > first + scan.page
            found: dict[str, Any] = {
                "findings": scan.findings[first : first + scan.page],
                "enhancedFindings": scan.enhanced,
                "findingSeverityCounts": Counter(finding["severity"] for finding in scan.findings),
            }
            found |= {"imageScanCompletedAt": scan.completed_at} if scan.completed_at else {}
            answer = {"imageScanStatus": {"status": scan.status}, "imageScanFindings": found}
            return ActionResult(answer | ({"nextToken": str(first + scan.page)} if left else {}))

        return describe_image_scan_findings

    def _start_scan(self) -> Callable[[ECRResponse], ActionResult]:
        def start_image_scan(response: ECRResponse) -> ActionResult:
            self._scan_of(response)
            return ActionResult({"imageScanStatus": {"status": "IN_PROGRESS"}})

        return start_image_scan

    def _put_image(self) -> Callable[[ECRResponse], ActionResult]:
        """moto's own drops an image with its last tag, and says of an immutable tag what ECR says of an equal one."""

        def put_image(response: ECRResponse) -> ActionResult:
            repository, tag = response._get_param("repositoryName"), response._get_param("imageTag")
            name, storage = f"{self.account}/{repository}", self._registry.storage
            media_type = response._get_param("imageManifestMediaType") or OCI_MANIFEST
            manifest = Blob(media_type=media_type, content=response._get_param("imageManifest").encode())
            present = storage.tags(name).get(tag)
            if present == manifest.digest:
                raise _Refused("ImageAlreadyExistsException", f"{tag} is {present} already")
            if present and repository in self.immutable:
                raise _Refused("ImageTagAlreadyExistsException", f"{tag} cannot be moved from {present}")
            storage.put_manifest(name, manifest, tag)
            self._show(repository)
            self._tell("PUSH", repository, manifest.digest, tag)
            image = {"imageId": {"imageDigest": manifest.digest, "imageTag": tag}, "repositoryName": repository}
            return ActionResult({"image": image})

        return put_image


@dataclass(slots=True)
class _Failure:
    operation: str
    code: str
    status: int
    times: int
    after: int

    def meets(self, operation: str) -> bool:
        """Whether this call is one to refuse, which counts it."""
        if operation != self.operation or self.times == 0:
            return False
        if self.after:
            self.after -= 1
            return False
        self.times -= 1
        return True


class _Image(Image):
    """moto's image with the size that ECR counts: the layers, compressed."""

    def get_image_size_in_bytes(self) -> int | None:
        layers = json.loads(self.image_manifest).get("layers")
        return None if layers is None else sum(layer["size"] for layer in layers)


class _Refused(ServiceException):
    """An error of ECR by its code. moto looks up the service by the class's module, so it cannot be its own class."""


def _layer_urls(registry: LocalRegistry) -> Callable[[ECRResponse], ActionResult]:
    """The one call we need that moto lacks."""

    def get_download_url_for_layer(self: ECRResponse) -> ActionResult:
        account, repository = self._get_param("registryId"), self._get_param("repositoryName")
        self.ecr_backend._get_repository(repository, account)
        digest = Digest(self._get_param("layerDigest"))
        if registry.storage.blob(digest) is None:
            raise _Refused("LayersNotFoundException", f"The layer '{digest}' does not exist")
        url = f"{registry.url}/v2/{account}/{repository}/blobs/{digest}"
        return ActionResult({"downloadUrl": url, "layerDigest": digest})

    return get_download_url_for_layer
