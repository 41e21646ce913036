"""What ECR's scans find, basic and enhanced. These calls block; `EcrRepositories` runs them in a thread.

https://docs.aws.amazon.com/AmazonECR/latest/APIReference/API_DescribeImageScanFindings.html
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from botocore import exceptions as aws
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from bot.core.findings import Finding, Scan, ScanState, Severity
from bot.core.images import Digest, PlatformImage

if TYPE_CHECKING:
    from types_boto3_ecr import ECRClient

PAGE = 1000  # findings, the most that ECR allows
MOST_PAGES = 20
NOT_SCANNED = "ScanNotFoundException"
UNSUPPORTED = "ECR cannot scan an image of this kind"
UNAVAILABLE = {
    "FAILED": "the scan failed",
    "UNSUPPORTED_IMAGE": UNSUPPORTED,
    "SCAN_ELIGIBILITY_EXPIRED": "its time to be scanned is over",
    "FINDINGS_UNAVAILABLE": "its findings cannot be had",
    "LIMIT_EXCEEDED": "the limit of scans is reached",
    "IMAGE_ARCHIVED": "it is archived",
    "IMAGE_SIZE_EXCEEDED": "it is too large to be scanned",
}
# Why ECR did not begin a scan. Where it may begin by itself, on push or because of Inspector, waiting is not in vain.
NOT_BEGUN = {
    "UnsupportedImageTypeException": Scan(state=ScanState.UNAVAILABLE, reason=UNSUPPORTED),
    "ImageArchivedException": Scan(state=ScanState.UNAVAILABLE, reason=UNAVAILABLE["IMAGE_ARCHIVED"]),
    "LimitExceededException": Scan(state=ScanState.PENDING),
    "ValidationException": Scan(state=ScanState.PENDING),  # enhanced scanning takes no requests
    "AccessDeniedException": Scan(state=ScanState.PENDING, reason="the bot may not start one (ecr:StartImageScan)"),
}


def _severity(value: object) -> Severity:
    """Levels that we do not know, such as Inspector's UNTRIAGED, are undefined."""
    known = str(value).lower()
    return Severity(known) if known in set(Severity) else Severity.UNDEFINED


def _page_address(value: object) -> str:
    address = str(value or "")
    return address if address.startswith(("https://", "http://")) and len(address) <= LONGEST_ADDRESS else ""


LONGEST_NAME, LONGEST_ADDRESS = 100, 200
Level = Annotated[Severity, BeforeValidator(_severity)]
Name = Annotated[str, BeforeValidator(lambda value: str(value or "")[:LONGEST_NAME])]
Address = Annotated[str, BeforeValidator(_page_address)]


class _Model(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)


class _Attribute(_Model):
    key: str
    value: str = ""


class _Basic(_Model):
    name: Name
    severity: Level = Severity.UNDEFINED
    uri: Address = ""
    attributes: tuple[_Attribute, ...] = ()

    def findings(self) -> Iterator[Finding]:
        package = next((each.value for each in self.attributes if each.key == "package_name"), "")
        yield Finding(name=self.name, severity=self.severity, uri=self.uri, package=package[:LONGEST_NAME])


class _Package(_Model):
    name: Name = ""


class _Details(_Model):
    id: Name = Field(alias="vulnerabilityId")
    uri: Address = Field("", alias="sourceUrl")
    packages: tuple[_Package, ...] = Field((), alias="vulnerablePackages")


class _Enhanced(_Model):
    """A finding of Inspector; one that somebody suppressed, or about something else than a package, is left out."""

    status: str = "ACTIVE"
    severity: Level = Severity.UNDEFINED
    details: _Details | None = Field(None, alias="packageVulnerabilityDetails")

    def findings(self) -> Iterator[Finding]:
        if self.details is None or self.status != "ACTIVE":
            return
        for package in self.details.packages or (_Package(),):
            yield Finding(name=self.details.id, severity=self.severity, uri=self.details.uri, package=package.name)


class _Findings(_Model):
    completed_at: AwareDatetime | None = Field(None, alias="imageScanCompletedAt")
    basic: tuple[_Basic, ...] = Field((), alias="findings")
    enhanced: tuple[_Enhanced, ...] = Field((), alias="enhancedFindings")


class _Status(_Model):
    status: str = ""


class _Page(_Model):
    status: _Status = Field(_Status(), alias="imageScanStatus")
    found: _Findings = Field(default_factory=lambda: _Findings.model_validate({}), alias="imageScanFindings")
    next_token: str = Field("", alias="nextToken")


def read_scan(image: PlatformImage, digest: Digest, since: datetime, ecr: "ECRClient") -> Scan:
    """The scan of one image, begun when there is none, or none after `since`. Raises ClientError and ValueError."""
    try:
        scan = _read(image, digest, ecr)
    except aws.ClientError as error:
        if _code(error) != NOT_SCANNED:
            raise
        return _begin(image, digest, ecr)
    if scan.completed_at and scan.completed_at < since and _begin(image, digest, ecr) == BEGUN:
        return BEGUN
    return scan


BEGUN = Scan(state=ScanState.PENDING, reason="it has just begun")


def _begin(image: PlatformImage, digest: Digest, ecr: "ECRClient") -> Scan:
    try:
        ecr.start_image_scan(
            registryId=image.registry_id, repositoryName=image.repository, imageId={"imageDigest": digest}
        )
    except aws.ClientError as error:
        if _code(error) not in NOT_BEGUN:
            raise
        return NOT_BEGUN[_code(error)]
    return BEGUN


def _read(image: PlatformImage, digest: Digest, ecr: "ECRClient") -> Scan:
    findings: list[Finding] = []
    token = ""
    for _ in range(MOST_PAGES):
        page = _Page.model_validate(_describe(image, digest, token, ecr))
        if page.status.status not in ("COMPLETE", "ACTIVE"):
            return _without_findings(page.status.status)
        findings += [each for basic in page.found.basic for each in basic.findings()]
        findings += [each for enhanced in page.found.enhanced for each in enhanced.findings()]
        token = page.next_token
        if not token:
            # Inspector scans again by itself, whenever it learns of something new.
            at = page.found.completed_at if page.status.status == "COMPLETE" else None
            completed_at = at.astimezone(UTC) if at else None
            return Scan(state=ScanState.DONE, findings=tuple(findings), completed_at=completed_at)
    return Scan(state=ScanState.UNAVAILABLE, reason=f"it has more than {MOST_PAGES * PAGE:,} findings")


def _describe(image: PlatformImage, digest: Digest, token: str, ecr: "ECRClient") -> Any:
    more = {"nextToken": token} if token else {}
    return ecr.describe_image_scan_findings(
        registryId=image.registry_id,
        repositoryName=image.repository,
        imageId={"imageDigest": digest},
        maxResults=PAGE,
        **more,
    )


def _without_findings(status: str) -> Scan:
    if status in ("IN_PROGRESS", "PENDING"):
        return Scan(state=ScanState.PENDING)
    return Scan(state=ScanState.UNAVAILABLE, reason=UNAVAILABLE.get(status, "its scan has a state that is not known"))


def _code(error: aws.ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")
