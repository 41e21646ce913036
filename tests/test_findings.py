"""What became of findings between two images."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bot.core.findings import LISTED, Comparison, Finding, Scan, ScanState, Severity, compare, merge

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
PENDING = Scan(state=ScanState.PENDING)
EXPIRED = Scan(state=ScanState.UNAVAILABLE, reason="its time to be scanned is over")


def finding(name: str, severity: Severity = Severity.HIGH, package: str = "openssl") -> Finding:
    return Finding(name=name, severity=severity, package=package)


def scan(*findings: Finding) -> Scan:
    return Scan(state=ScanState.DONE, findings=findings)


def test_findings_are_fixed_remaining_or_new() -> None:
    """By name and package: the same vulnerability in another package is another one."""
    old = scan(finding("CVE-1"), finding("CVE-2"), finding("CVE-3", package="zlib"))
    found = compare(old, scan(finding("CVE-2"), finding("CVE-3"), finding("CVE-2")), NOW)
    assert found.fixed.worst == (finding("CVE-1"), finding("CVE-3", package="zlib"))
    assert found.remaining.worst == (finding("CVE-2"),)
    assert found.new.worst == (finding("CVE-3"),)


def test_the_worst_come_first_and_all_are_counted() -> None:
    """However many there are, the row keeps a few names, the worst, and counts by severity."""
    low = [finding(f"CVE-{number}", Severity.LOW) for number in range(1000)]
    found = compare(scan(), scan(*low, finding("CVE-9999", Severity.CRITICAL)), NOW).new
    assert found.counts == {Severity.LOW: 1000, Severity.CRITICAL: 1}
    assert (found.total, len(found.worst), found.worst[0].name) == (1001, LISTED, "CVE-9999")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (scan(), PENDING, Comparison(state=ScanState.PENDING)),
        (PENDING, scan(), Comparison(state=ScanState.PENDING)),
        (
            EXPIRED,
            PENDING,
            Comparison(state=ScanState.UNAVAILABLE, reason="the image before it: its time to be scanned is over"),
        ),
        (
            scan(),
            EXPIRED,
            Comparison(state=ScanState.UNAVAILABLE, reason="the new image: its time to be scanned is over"),
        ),
    ],
)
def test_nothing_is_compared_before_both_are_scanned(old: Scan, new: Scan, expected: Comparison) -> None:
    """Half a comparison would invent fixes or newcomers."""
    assert compare(old, new, NOW) == expected


@pytest.mark.parametrize("late", [True, False])
def test_an_old_scan_of_the_image_before_is_told(late: bool) -> None:
    """What it did not know then counts as new now."""
    before = NOW - timedelta(seconds=1) if late else NOW
    found = compare(replace(scan(), completed_at=before), scan(finding("CVE-1")), NOW)
    assert found.old_scan == (before if late else None)


def test_an_index_is_scanned_when_all_its_images_are() -> None:
    """Findings of all platforms count; the least advanced scan decides."""
    one, other = scan(finding("CVE-1")), scan(finding("CVE-2"))
    assert merge([one, other]).findings == (finding("CVE-1"), finding("CVE-2"))
    assert merge([one, PENDING]) == PENDING
    assert merge([PENDING, EXPIRED]) == EXPIRED
