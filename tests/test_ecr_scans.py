"""Scans as ECR tells them, basic and enhanced, against the local ECR."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bot.clients.ecr import EcrRepositories
from bot.clients.http import Limits, open_session
from bot.core.findings import Finding, Scan, ScanState, Severity
from bot.core.images import Digest
from bot.demo.ecr import LocalEcr, LocalScan
from bot.demo.image_builder import make_image, make_layer
from bot.errors import NotFound, PeerError, PeerRefused
from tests.peers.registry import MemoryCache, Pauses, platform_image

LIMITS = Limits(tries=1)
IMAGE = platform_image()
TAG = f"{IMAGE.tag}-1.3.0"
NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
SINCE = NOW - timedelta(hours=24)
PAGE = "https://security-tracker.debian.org/tracker/CVE-2026-1"


@pytest.fixture
def pushed(ecr: LocalEcr) -> Digest:
    return ecr.publish(IMAGE.repository, [TAG], make_image([make_layer({"name": "one"})]))


@pytest.fixture
async def client() -> AsyncIterator[EcrRepositories]:
    async with open_session(LIMITS) as session:
        client = EcrRepositories(session, MemoryCache(), limits=LIMITS, sleep=Pauses())
        yield client
        await client.close()


def basic(name: str = "CVE-2026-1", severity: str = "HIGH", uri: str = PAGE) -> dict[str, Any]:
    attributes = [{"key": "package_version", "value": "1.1"}, {"key": "package_name", "value": "openssl"}]
    return {"name": name, "severity": severity, "uri": uri, "attributes": attributes}


def enhanced(severity: str = "CRITICAL", status: str = "ACTIVE", *packages: str) -> dict[str, Any]:
    details = {
        "vulnerabilityId": "CVE-2026-2",
        "sourceUrl": PAGE,
        "vulnerablePackages": [{"name": p} for p in packages],
    }
    return {"severity": severity, "status": status, "packageVulnerabilityDetails": details}


async def test_basic_findings_are_read(ecr: LocalEcr, pushed: Digest, client: EcrRepositories) -> None:
    """Name, severity, page and package, from every page of the answer."""
    findings = tuple(basic(f"CVE-2026-{number}") for number in range(5))
    ecr.scans[TAG] = LocalScan(findings=findings, completed_at=NOW, page=2)
    scan = await client.scan(IMAGE, pushed, SINCE)
    assert (scan.state, scan.completed_at) == (ScanState.DONE, NOW)
    assert [finding.name for finding in scan.findings] == [f"CVE-2026-{number}" for number in range(5)]
    assert scan.findings[1] == Finding(name="CVE-2026-1", severity=Severity.HIGH, uri=PAGE, package="openssl")
    assert ecr.calls.count("DescribeImageScanFindings") == 3


async def test_more_findings_than_can_be_read_are_not_compared(
    ecr: LocalEcr, pushed: Digest, client: EcrRepositories
) -> None:
    """What was left out would count as fixed."""
    ecr.scans[TAG] = LocalScan(findings=tuple(basic(f"CVE-2026-{number}") for number in range(21)), page=1)
    scan = await client.scan(IMAGE, pushed, SINCE)
    assert (scan.state, scan.reason) == (ScanState.UNAVAILABLE, "it has more than 20,000 findings")


async def test_enhanced_findings_are_read(ecr: LocalEcr, pushed: Digest, client: EcrRepositories) -> None:
    """One for each package; what was suppressed, or concerns no package, is none; UNTRIAGED is undefined."""
    found = (
        enhanced("CRITICAL", "ACTIVE", "openssl", "libssl"),
        enhanced("HIGH", "SUPPRESSED", "zlib"),
        enhanced("UNTRIAGED"),
        {"severity": "HIGH", "title": "code"},
    )
    ecr.scans[TAG] = LocalScan(status="ACTIVE", enhanced=found, completed_at=NOW - timedelta(days=30))
    scan = await client.scan(IMAGE, pushed, SINCE)
    assert [(each.name, each.severity, each.package) for each in scan.findings] == [
        ("CVE-2026-2", Severity.CRITICAL, "openssl"),
        ("CVE-2026-2", Severity.CRITICAL, "libssl"),
        ("CVE-2026-2", Severity.UNDEFINED, ""),
    ]
    assert "StartImageScan" not in ecr.calls


@pytest.mark.parametrize("uri", ["javascript:alert(1)", "", "https://example.com/" + "x" * 300])
async def test_only_pages_are_linked(ecr: LocalEcr, pushed: Digest, client: EcrRepositories, uri: str) -> None:
    """An address that is no web page, or too long for a card, is left out."""
    ecr.scans[TAG] = LocalScan(findings=(basic(uri=uri),))
    (finding,) = (await client.scan(IMAGE, pushed, SINCE)).findings
    assert finding.uri == ""


@pytest.mark.parametrize(
    ("status", "state", "reason"),
    [
        ("IN_PROGRESS", ScanState.PENDING, ""),
        ("PENDING", ScanState.PENDING, ""),
        ("FAILED", ScanState.UNAVAILABLE, "the scan failed"),
        ("UNSUPPORTED_IMAGE", ScanState.UNAVAILABLE, "ECR cannot scan an image of this kind"),
        ("SCAN_ELIGIBILITY_EXPIRED", ScanState.UNAVAILABLE, "its time to be scanned is over"),
        ("SOMETHING_NEW", ScanState.UNAVAILABLE, "its scan has a state that is not known"),
    ],
)
async def test_a_scan_without_findings(
    ecr: LocalEcr, pushed: Digest, client: EcrRepositories, status: str, state: ScanState, reason: str
) -> None:
    """It has not finished, or never will."""
    ecr.scans[TAG] = LocalScan(status=status, findings=(basic(),))
    assert await client.scan(IMAGE, pushed, SINCE) == Scan(state=state, reason=reason)


@pytest.mark.parametrize(
    ("refusal", "state"),
    [
        ("", ScanState.PENDING),
        ("LimitExceededException", ScanState.PENDING),
        ("ValidationException", ScanState.PENDING),
        ("AccessDeniedException", ScanState.PENDING),
        ("UnsupportedImageTypeException", ScanState.UNAVAILABLE),
    ],
)
async def test_what_was_never_scanned_is_scanned_now(
    ecr: LocalEcr, pushed: Digest, client: EcrRepositories, refusal: str, state: ScanState
) -> None:
    """ECR may refuse to begin; where it may begin by itself, that is waited for."""
    ecr.scans[TAG] = LocalScan(status="")
    if refusal:
        ecr.fail_next("StartImageScan", refusal)
    assert (await client.scan(IMAGE, pushed, SINCE)).state is state
    assert ecr.calls[-1] == "StartImageScan"


@pytest.mark.parametrize(("refusal", "state"), [("", ScanState.PENDING), ("LimitExceededException", ScanState.DONE)])
async def test_an_old_scan_is_made_again(
    ecr: LocalEcr, pushed: Digest, client: EcrRepositories, refusal: str, state: ScanState
) -> None:
    """Both images are to be judged by what is known today; where that is refused, what was found before counts."""
    ecr.scans[TAG] = LocalScan(findings=(basic(),), completed_at=SINCE - timedelta(days=30))
    if refusal:
        ecr.fail_next("StartImageScan", refusal)
    assert (await client.scan(IMAGE, pushed, SINCE)).state is state


@pytest.mark.parametrize(
    ("code", "error"), [("AccessDeniedException", PeerRefused), ("RepositoryNotFoundException", NotFound)]
)
async def test_a_refusal_is_told(
    ecr: LocalEcr, pushed: Digest, client: EcrRepositories, code: str, error: type[PeerError]
) -> None:
    """Errors come as ours, without what AWS says in them."""
    ecr.fail_next("DescribeImageScanFindings", code)
    with pytest.raises(error) as caught:
        await client.scan(IMAGE, pushed, SINCE)
    assert "as planned" not in str(caught.value)
