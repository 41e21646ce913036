"""Why the bot thinks so: what a check found about an image, for behind *Why?*."""

from datetime import datetime

from microsoft_teams.cards.core import CardElement

from bot.core.checks import Status, Verdict
from bot.teams.cards.card import line
from bot.teams.cards.formats import Safe, age, clean, moment
from bot.teams.cards.states import capital, whole

MOST_TAGS = 8


def explanation(verdict: Verdict, now: datetime | None = None) -> list[CardElement]:
    """Platform and evidence, both digests, when they were seen, and the tags of the version.

    With `now` times come with their ages, which is for answers: other cards would tell of a past present.
    """
    lines: list[CardElement] = [line(capital(clean(verdict.why)), ".")]
    if verdict.version_tag and verdict.recorded_digest:
        lines += whole(f"{verdict.version_tag} is built on", verdict.recorded_digest)
    lines += whole(f"{verdict.base} is now", verdict.current_digest)
    if verdict.first_seen:
        before = [", another one last ", moment(verdict.moved_after)] if verdict.moved_after else []
        lines.append(line("This base was first seen ", *_moment(verdict.first_seen, now), *before, ".", subtle=True))
    if verdict.pushed_at and verdict.status is not Status.UNBUILT:
        lines.append(line("The version was pushed ", *_moment(verdict.pushed_at, now), ".", subtle=True))
    if others := [tag for tag in verdict.tags if tag != verdict.version_tag]:
        more = f" and {len(others) - MOST_TAGS} more" if len(others) > MOST_TAGS else ""
        lines.append(line("The same image in ECR: ", ", ".join(others[:MOST_TAGS]), more, ".", subtle=True))
    return lines


def _moment(at: datetime, now: datetime | None) -> list[str]:
    old = f" ({age(now - at)} ago)" if now and now > at else ""
    return [moment(at), Safe(old)]
