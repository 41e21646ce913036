"""The summary of one check: which images need something, with the question for each. Its rows follow the answers."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta

from microsoft_teams.cards.core import ActionSet, CardElement, Container, TextColor, TextRun

from bot.core.checks import Check, Evidence, Status, Verdict
from bot.core.images import Mode, PlatformImage
from bot.core.rebuilds import ENDED, Rebuild
from bot.teams.cards.card import Card, action_set, button, card, details, fitting, heading, line, run
from bot.teams.cards.decisions import approve, reject
from bot.teams.cards.formats import Safe, clean, day, moment, plural, time
from bot.teams.cards.states import approvals, decidable, digests, standing, whole

COLORS: dict[Status, TextColor] = {
    Status.FRESH: "Good",
    Status.STALE: "Warning",
    Status.UNKNOWN: "Attention",
    Status.UNBUILT: "Accent",
}
WORDS = {Status.FRESH: "fresh", Status.STALE: "stale", Status.UNKNOWN: "unknown", Status.UNBUILT: "never built"}
ORDER = (Status.STALE, Status.UNBUILT, Status.UNKNOWN)


def check_card(
    check: Check,
    rebuilds: Mapping[str, Rebuild],
    catalog: Mapping[str, PlatformImage],
    *,
    images: Collection[str] = (),
    now: datetime,
) -> Card:
    """The card of one check. `rebuilds` are those its verdicts name, by id; `images` restricts the rows."""
    at = check.slot or check.checked_at
    name = f"{at:%A} check" if check.slot else "Check"
    title = [f"{name} · ", moment(at)]
    if check.problem:
        body = [heading(*title, " · failed"), line("No image was checked: ", check.problem)]
        return card(f"{name} failed", body, [button("Check now", "check", style="positive")])
    verdicts = [verdict for verdict in check.verdicts if not images or verdict.name in images]
    needy = [verdict for status in ORDER for verdict in verdicts if verdict.status is status]
    if not needy:
        told = _all_fresh(verdicts)
        return card(f"{name}: {told}", [line(*title, f": {told}.")])
    rows = [_Row(verdict, rebuilds.get(verdict.rebuild_id or ""), catalog.get(verdict.name), now) for verdict in needy]
    return _summary(name, title, verdicts, rows)
