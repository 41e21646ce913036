"""What scans say of an update, in words."""

from collections.abc import Iterable

from microsoft_teams.cards.core import CardElement, OpenUrlAction, RichTextBlock, TextRun

from bot.core.findings import Comparison, Finding, Group, ScanState, Severity
from bot.core.rebuilds import Rebuild
from bot.teams.cards.card import line, run
from bot.teams.cards.formats import Safe, clean, moment

LONGEST_NAME = 48


def scan_lines(comparison: Comparison | None) -> list[CardElement]:
    """`Vulnerabilities: fixes 3 critical, 5 high · new: 1 medium · 12 remain`; nothing when nobody has looked."""
    if comparison is None:
        return []
    if comparison.state is ScanState.PENDING:
        return [line("Vulnerabilities: the scan has not finished yet.", subtle=True)]
    if comparison.state is ScanState.UNAVAILABLE:
        return [line(Safe(not_compared(comparison)), subtle=True)]
    parts = _parts(comparison)
    told = [line(*parts)] if parts else [line("The scans found no vulnerabilities.")]
    return told + _caution(comparison)


def _caution(comparison: Comparison) -> list[CardElement]:
    """What the comparison cannot know."""
    if comparison.old_scan is None:
        return []
    told = (
        "The version before was last scanned ",
        moment(comparison.old_scan),
        "; it may have what is new here as well.",
    )
    return [line(*told, subtle=True)]


def not_compared(comparison: Comparison) -> str:
    """Why there is no comparison, as a sentence."""
    return f"Vulnerabilities were not compared: {clean(comparison.reason)}."


def _parts(comparison: Comparison) -> list[str | TextRun]:
    told: list[str | TextRun] = []
    if comparison.fixed.total:
        told.append(f"fixes {comparison.fixed.counted()}")
    if comparison.new.total:
        grave = not {Severity.CRITICAL, Severity.HIGH}.isdisjoint(comparison.new.counts)
        told.append(run(f"new: {comparison.new.counted()}", bold=grave))
    if comparison.remaining.total:
        told.append(f"{comparison.remaining.total} remain" + ("s" if comparison.remaining.total == 1 else ""))
    between = [part for each in told for part in (Safe(" · "), each)][1:]
    return ["Vulnerabilities: ", *between, "."] if told else []


def held_back_lines(rebuild: Rebuild) -> list[CardElement]:
    """What to do about new vulnerabilities that the catalog does not let pass; nothing when there are none."""
    return [line(run(Safe(advice(rebuild)), bold=True))] if rebuild.held_back else []


def advice(rebuild: Rebuild) -> str:
    """Where the catalog holds it back."""
    return f"Look at what is new before you use this version. To go back, type: rollback {rebuild.image}"


def finding_lines(comparison: Comparison | None) -> list[CardElement]:
    """The worst of what is new, fixed and left, each a link to its page, for behind *Why?*."""
    if comparison is None:
        return []
    groups = (("New: ", comparison.new), ("Fixed: ", comparison.fixed), ("Remaining: ", comparison.remaining))
    return [_listed(title, group) for title, group in groups if group.total]


def _listed(title: str, group: Group) -> CardElement:
    runs: list[CardElement] = [run(Safe(title))]
    for finding in group.worst:
        runs += [*_named(finding), run(Safe(", "))]
    left = group.total - len(group.worst)
    return RichTextBlock(inlines=[*runs[:-1], run(Safe(f" and {left} more." if left else "."))], spacing="Small")


def _named(finding: Finding) -> Iterable[TextRun]:
    told = run(clean(finding.name, LONGEST_NAME))
    package = f" in {clean(finding.package, LONGEST_NAME)}" if finding.package else ""
    yield told.model_copy(update={"select_action": OpenUrlAction(url=finding.uri)}) if finding.uri else told
    yield run(Safe(f" {finding.severity}{package}"))
