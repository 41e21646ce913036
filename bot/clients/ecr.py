"""ECR, where platform images are pushed.

boto3 blocks, so every call runs in a thread. https://docs.aws.amazon.com/AmazonECR/latest/APIReference/
The bot needs ecr:DescribeImages, ecr:BatchGetImage and ecr:GetDownloadUrlForLayer, and ecr:PutImage to move tags.
ecr:DescribeImageScanFindings and ecr:StartImageScan are for comparing scans.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

import aiohttp
import boto3
from botocore import exceptions as aws
from botocore.config import Config
from botocore.parsers import ResponseParserError
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from yarl import URL

from bot.clients.documents import CONFIG_LIMIT, MANIFEST_TYPES, Documents, RepositoryContents, nonsense
from bot.clients.ecr_scans import read_scan
from bot.clients.http import HttpClient, Limits, Sleep, status_words
from bot.clients.shared import Shared
from bot.core.findings import Scan
from bot.core.images import Digest, PlatformImage, PublishedImage, Version
from bot.core.ports import DocumentCache
from bot.errors import NotFound, PeerError, PeerRefused, PeerUnavailable

if TYPE_CHECKING:
    from types_boto3_ecr import ECRClient
    from types_boto3_ecr.type_defs import DescribeImagesRequestTypeDef, ImageTypeDef, PutImageRequestTypeDef

PAGE = 1000  # images, the most that ECR allows
CALLS_IN_FLIGHT = 4  # each holds a thread
# What the API answers with status 400, sorted by what the caller can do. Other 4xx are refusals.
ABSENT = {
    "RepositoryNotFoundException": "repository",
    "ImageNotFoundException": "such image in",
    "LayersNotFoundException": "such layer in",
}
OVERLOADED = frozenset({"LimitExceededException", "RequestLimitExceeded", "ThrottlingException"})
UNCHANGED = "ImageAlreadyExistsException"  # the tag points to this digest already
IMMUTABLE = "ImageTagAlreadyExistsException"
UPSTREAM = "Upstream"  # in the codes of a pull-through cache whose source fails

Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class _Detail(BaseModel):
    """What DescribeImages says of one digest."""

    model_config = ConfigDict(hide_input_in_errors=True)

    digest: Annotated[str, AfterValidator(Digest)] = Field(alias="imageDigest")
    tags: tuple[str, ...] = Field((), alias="imageTags")
    pushed_at: AwareDatetime | None = Field(None, alias="imagePushedAt")
    size: int | None = Field(None, alias="imageSizeInBytes")


class EcrRepositories:
    """Implements the port `ImageRepository` for any number of accounts and regions.

    Credentials and endpoints are boto3's own business. `session` reads configuration blobs and is closed by the caller,
    `close` closes the rest.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        cache: DocumentCache,
        *,
        limits: Limits | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.requests = 0
        self._limits = limits or Limits()
        self._http = HttpClient(session, self._count, limits=self._limits, sleep=sleep)
        self._documents = Documents(cache)
        self._in_flight = asyncio.Semaphore(CALLS_IN_FLIGHT)
        self._clients: dict[str, ECRClient] = {}
        self._new_clients: Shared[str, ECRClient] = Shared()
        self._listings: Shared[tuple[str, str, str], list[_Detail]] = Shared()

    async def close(self) -> None:
        for client in self._clients.values():
            client.close()

    async def newest(self, image: PlatformImage) -> PublishedImage | None:
        """The highest version of the image's line; None when the repository is missing or has no version of it.

        Images of one repository that are asked for at the same time cost one listing. A listing is shared only until
        its first request is sent, so nobody gets one from before the question.
        """
        details = await self._details(image)
        found = [published for detail in details if (published := _newest(image, detail))]
        newest = max(found, key=lambda published: published.version, default=None)
        floating = [published for published in found if not set(image.floating_tags).isdisjoint(published.tags)]
        in_use = max(floating, key=lambda published: published.version, default=None)
        if newest is None or in_use is None:
            return newest
        return replace(newest, in_use_tag=in_use.version_tag, in_use_digest=in_use.digest)

    async def find(self, image: PlatformImage, tag: str) -> PublishedImage | None:
        """One version tag of the image's line, None when it is not there. Never answered from a listing."""
        version = image.version_of(tag)
        if version is None:
            return None
        try:
            detail = await self._call(image, partial(_describe_one, image, tag))
        except NotFound:
            return None
        return _published(image, detail, version)

    async def tags(self, image: PlatformImage) -> Mapping[str, Digest]:
        """What every tag of the image's repository points to; empty when the repository is missing."""
        details = await self._details(image)
        return {tag: Digest(detail.digest) for detail in details for tag in detail.tags}

    async def move_tag(self, image: PlatformImage, tag: str, digest: Digest) -> None:
        """Let a tag point to an image that the repository has; done as well when it does already.

        Raises PeerRefused where tags are immutable, and NotFound when the repository does not have the digest.
        """
        found = await self._call(image, partial(_get_image, image, digest))
        await self._call(image, partial(_put_tag, image, tag, digest, found))

    async def scan(self, image: PlatformImage, digest: Digest, since: datetime) -> Scan:
        """What a scan finds in one image of the repository. One is begun where there is none, or none after `since`.

        Raises NotFound, PeerRefused, PeerUnavailable.
        """
        return await self._call(image, partial(read_scan, image, digest, since))

    def contents(self, image: PlatformImage) -> RepositoryContents:
        """The documents of the image's repository."""
        return RepositoryContents(
            documents=self._documents,
            peer=_peer(image),
            fetch_manifest=partial(self._manifest, image),
            fetch_config=partial(self._config, image),
        )

    async def _details(self, image: PlatformImage) -> list[_Detail]:
        key = (image.registry_id, image.region, image.repository)
        try:
            return await self._listings.get(key, lambda: self._list(key, image))
        except NotFound:
            return []

    async def _list(self, key: tuple[str, str, str], image: PlatformImage) -> list[_Detail]:
        """All tagged images of a repository."""
        self._listings.part(key)
        details, token = await self._call(image, partial(_describe_page, image, ""))
        while token:
            page, token = await self._call(image, partial(_describe_page, image, token))
            details += page
        return details

    async def _manifest(self, image: PlatformImage, digest: Digest) -> bytes:
        found = await self._call(image, partial(_get_image, image, digest))
        return found["imageManifest"].encode()

    async def _config(self, image: PlatformImage, digest: Digest) -> bytes:
        # The URL is signed: it is used byte for byte, and it is a credential.
        url = await self._call(image, partial(_get_download_url, image, digest))
        blob = await self._http.ask("GET", url, peer=_peer(image), limit=CONFIG_LIMIT, headers={})
        if blob.status != 200:
            raise PeerUnavailable(f"{_peer(image)} answered {status_words(blob.status)} for a configuration")
        return blob.content

    async def _call(self, image: PlatformImage, work: "Callable[[ECRClient], Result]") -> Result:
        """One API call, in a thread. Raises NotFound, PeerRefused, PeerUnavailable."""
        client = await self._client(image)
        async with self._in_flight:
            self._count()
            try:
                return await asyncio.to_thread(work, client)
            except (aws.BotoCoreError, aws.ClientError) as error:
                raise _error(error, image) from None
            except (ResponseParserError, LookupError, AttributeError, TypeError, ValueError) as error:
                # botocore does not check what it is sent: something of another shape breaks wherever it is read.
                logger.warning("unreadable answer of %s", _peer(image), exc_info=True)
                raise nonsense(_peer(image), type(error).__name__) from None

    async def _client(self, image: PlatformImage) -> "ECRClient":
        region = image.region
        if region not in self._clients:
            try:
                self._clients[region] = await self._new_clients.get(region, lambda: self._open(region))
            except (aws.BotoCoreError, ValueError) as error:
                raise PeerRefused(f"{_peer(image)} cannot be asked: {type(error).__name__} in AWS settings") from None
        return self._clients[region]

    async def _open(self, region: str) -> "ECRClient":
        config = Config(
            connect_timeout=self._limits.connect_s,
            read_timeout=self._limits.total_s,
            retries={"mode": "standard", "total_max_attempts": self._limits.tries},
            max_pool_connections=CALLS_IN_FLIGHT,
        )
        # Sessions are not for several threads, so each client has one.
        return await asyncio.to_thread(lambda: boto3.Session().client("ecr", region_name=region, config=config))

    def _count(self) -> None:
        self.requests += 1


def _describe_page(image: PlatformImage, token: str, ecr: "ECRClient") -> tuple[list[_Detail], str]:
    """One page of tagged images, and the token of the next page, empty after the last."""
    # One call tells tags, digests, sizes and times; ListImages would need DescribeImages after it.
    request: DescribeImagesRequestTypeDef = {
        "registryId": image.registry_id,
        "repositoryName": image.repository,
        "filter": {"tagStatus": "TAGGED"},
        "maxResults": PAGE,
    }
    if token:
        request["nextToken"] = token
    page = ecr.describe_images(**request)
    return [_Detail.model_validate(detail) for detail in page["imageDetails"]], page.get("nextToken", "")


def _describe_one(image: PlatformImage, tag: str, ecr: "ECRClient") -> _Detail:
    answer = ecr.describe_images(
        registryId=image.registry_id, repositoryName=image.repository, imageIds=[{"imageTag": tag}]
    )
    return _Detail.model_validate(answer["imageDetails"][0])


def _get_image(image: PlatformImage, digest: Digest, ecr: "ECRClient") -> "ImageTypeDef":
    answer = ecr.batch_get_image(
        registryId=image.registry_id,
        repositoryName=image.repository,
        imageIds=[{"imageDigest": digest}],
        acceptedMediaTypes=list(MANIFEST_TYPES),
    )
    if answer["images"]:
        return answer["images"][0]
    raise _withheld(image, digest, answer["failures"][0]["failureCode"])


def _put_tag(image: PlatformImage, tag: str, digest: Digest, found: "ImageTypeDef", ecr: "ECRClient") -> None:
    """The manifest goes back byte for byte, so its digest stays.

    https://docs.aws.amazon.com/AmazonECR/latest/userguide/image-retag.html
    """
    request: PutImageRequestTypeDef = {
        "registryId": image.registry_id,
        "repositoryName": image.repository,
        "imageManifest": found["imageManifest"],
        "imageTag": tag,
        "imageDigest": digest,
    }
    if media_type := found.get("imageManifestMediaType"):
        request["imageManifestMediaType"] = media_type
    try:
        ecr.put_image(**request)
    except aws.ClientError as error:
        if error.response.get("Error", {}).get("Code") != UNCHANGED:
            raise


def _get_download_url(image: PlatformImage, digest: Digest, ecr: "ECRClient") -> URL:
    answer = ecr.get_download_url_for_layer(
        registryId=image.registry_id, repositoryName=image.repository, layerDigest=digest
    )
    return URL(answer["downloadUrl"], encoded=True)


def _newest(image: PlatformImage, detail: _Detail) -> PublishedImage | None:
    """The highest version among the tags of one digest, None when it has none of the image's line."""
    versions = [version for tag in detail.tags if (version := image.version_of(tag))]
    return _published(image, detail, max(versions)) if versions else None


def _published(image: PlatformImage, detail: _Detail, version: Version) -> PublishedImage:
    return PublishedImage(
        version=version,
        version_tag=image.version_tag(version),
        digest=Digest(detail.digest),
        tags=tuple(sorted(detail.tags)),
        pushed_at=detail.pushed_at.astimezone(UTC) if detail.pushed_at else None,
        size=detail.size or None,  # an index may have none of its own
    )


def _peer(image: PlatformImage) -> str:
    return f"ECR in {image.region}"


def _withheld(image: PlatformImage, digest: Digest, code: str) -> PeerError:
    """Why BatchGetImage left an image out."""
    if code == "ImageNotFound":
        return NotFound(f"{_peer(image)} has no {image.repository}@{digest.short}")
    kind = PeerUnavailable if code.startswith(UPSTREAM) else PeerRefused
    return kind(f"{_peer(image)} did not give {image.repository}@{digest.short} ({code})")


def _error(error: Exception, image: PlatformImage) -> PeerError:
    """Ours for one of botocore's, without its text: that of a signature error repeats the session token."""
    peer = _peer(image)
    match error:
        case aws.ClientError():
            return _answered(error, peer, image.repository)
        case aws.NoCredentialsError() | aws.PartialCredentialsError():
            return PeerRefused(f"{peer} cannot be asked: no AWS credentials were found")
        case aws.ConnectTimeoutError() | aws.EndpointConnectionError():
            return PeerUnavailable(f"{peer} could not be reached")
        case aws.ReadTimeoutError():
            return PeerUnavailable(f"{peer} did not answer in time")
    return PeerUnavailable(f"{peer} could not be asked ({type(error).__name__})")


def _answered(error: aws.ClientError, peer: str, repository: str) -> PeerError:
    code = error.response.get("Error", {}).get("Code", "no code")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in ABSENT:
        return NotFound(f"{peer} has no {ABSENT[code]} {repository}")
    if code == IMMUTABLE:
        return PeerRefused(f"the tags of {repository} are immutable in {peer}")
    reason = f"{error.operation_name} of {repository} ({code})"
    if status == 429 or status >= 500 or code in OVERLOADED or UPSTREAM in code:
        return PeerUnavailable(f"{peer} could not do {reason}")
    return PeerRefused(f"{peer} refused {reason}")
