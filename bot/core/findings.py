"""What a scan finds in an image, and what of it an update brings, leaves and takes away."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

LISTED = 4  # of each group, by name; the rest is counted, so that a row stays small


class Severity(StrEnum):
    """How bad a finding is, the worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    INFORMATIONAL = "informational"
    UNDEFINED = "undefined"


RANK = {severity: rank for rank, severity in enumerate(Severity)}


class ScanState(StrEnum):
    """Whether there are findings; `pending` is a scan that has not finished."""

    DONE = "done"
    PENDING = "pending"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A vulnerability in a package; `uri` and `package` are empty when they are not known."""

    name: str
    severity: Severity
    uri: str = ""
    package: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What a scan of an image says. `reason` tells why there are no findings; `completed_at` is None if not told."""

    state: ScanState
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    completed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Findings as they are kept: how many there are of each severity, and the worst of them by name."""

    counts: dict[Severity, int] = field(default_factory=dict)
    worst: tuple[Finding, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def counted(self, least: Severity = Severity.UNDEFINED) -> str:
        """`3 critical, 5 high`: what is at least as bad as `least`, the worst first; empty when nothing is."""
        bad = (severity for severity in Severity if severity in self.counts and RANK[severity] <= RANK[least])
        return ", ".join(f"{self.counts[severity]} {severity}" for severity in bad)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """An image against the one it replaces. The groups are empty until `state` is done."""

    state: ScanState
    reason: str = ""
    fixed: Group = Group()
    remaining: Group = Group()
    new: Group = Group()
    old_scan: datetime | None = None  # of the image before, when that is too long ago to know what is known today


def merge(scans: Sequence[Scan]) -> Scan:
    """One scan for the images of an index: all findings, each once; as far as the least of them is."""
    for state in (ScanState.UNAVAILABLE, ScanState.PENDING):
        if least := next((scan for scan in scans if scan.state is state), None):
            return least
    return Scan(
        state=ScanState.DONE,
        findings=tuple(finding for scan in scans for finding in scan.findings),
        completed_at=min((scan.completed_at for scan in scans if scan.completed_at), default=None),
    )


def compare(old: Scan, new: Scan, since: datetime) -> Comparison:
    """What became of each finding, by name and package. A scan before `since` is an old one."""
    for scan, which in ((new, "the new image"), (old, "the image before it")):
        if scan.state is ScanState.UNAVAILABLE:
            return Comparison(state=ScanState.UNAVAILABLE, reason=f"{which}: {scan.reason}")
    for scan in (new, old):
        if scan.state is ScanState.PENDING:
            return Comparison(state=ScanState.PENDING, reason=scan.reason)
    before, after = _by_key(old.findings), _by_key(new.findings)
    return Comparison(
        state=ScanState.DONE,
        fixed=_group(before[key] for key in before.keys() - after.keys()),
        remaining=_group(after[key] for key in after.keys() & before.keys()),
        new=_group(after[key] for key in after.keys() - before.keys()),
        old_scan=old.completed_at if old.completed_at and old.completed_at < since else None,
    )


def _by_key(findings: Iterable[Finding]) -> dict[tuple[str, str], Finding]:
    return {(finding.name, finding.package): finding for finding in findings}


def _group(findings: Iterable[Finding]) -> Group:
    ordered = sorted(findings, key=lambda finding: (RANK[finding.severity], finding.name, finding.package))
    return Group(counts=dict(Counter(finding.severity for finding in ordered)), worst=tuple(ordered[:LISTED]))
