"""Why a base moved and how long it is supported, in words."""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from itertools import groupby

from microsoft_teams.cards.core import CardElement, OpenUrlAction, RichTextBlock, TextRun

from bot.core.base_news import BaseNews, Cve, NewsKind
from bot.core.checks import Status, Verdict
from bot.core.support import RING, URGE, Support
from bot.teams.cards.card import line, run
from bot.teams.cards.formats import Safe, clean, plural

MOST_CVES = 10
MOST_WARNINGS = 4
MOST_NAMES = 3
LONGEST_NAME = 48


def news_lines(news: BaseNews | None) -> list[CardElement]:
    """`.NET 6.0.33 → 6.0.35, security: 3 CVEs`; nothing when it is not known."""
    if news is None:
        return []
    return [line(run(news_words(news), bold=bool(news.security)))]


def news_words(news: BaseNews) -> str:
    if news.kind is NewsKind.REBUILD:
        return f"Rebuild of {_short(news.new_version)}, no .NET change"
    what = ".NET SDK" if news.sdk_only else ".NET"
    return f"{what} {_short(news.old_version)} → {_short(news.new_version)}{_security(news)}"


def _security(news: BaseNews) -> str:
    if news.security is None:
        return ""
    if not news.security:
        return ", no security fixes"
    return f", security: {plural(len(news.cves), 'CVE')}" if news.cves else ", security fixes"


def cve_lines(news: BaseNews | None) -> list[CardElement]:
    """What a release fixes, each a link to its page, for behind *Why?*."""
    if news is None or not news.cves:
        return []
    runs: list[CardElement] = [run(Safe("Fixes "))]
    for cve in news.cves[:MOST_CVES]:
        runs += [_link(cve), run(Safe(", "))]
    left = len(news.cves) - MOST_CVES
    end = run(Safe(f" and {left} more." if left > 0 else "."))
    return [RichTextBlock(inlines=[*runs[:-1], end], spacing="Small")]


def _link(cve: Cve) -> TextRun:
    told = run(_short(cve.id))
    return told.model_copy(update={"select_action": OpenUrlAction(url=cve.url)}) if cve.url else told


# Support


def support_mark(support: Support | None, today: date) -> str:
    """` · out of support since 12 Nov 2024`, to be said after where an image stands; empty while it is supported."""
    return f" · out of support since {_day(support.ends)}" if support and support.is_over(today) else ""


def support_words(support: Support, today: date) -> str:
    """`.NET 6.0 ended 12 Nov 2024; next is dotnet-sdk-8`, `.NET 8.0 until 10 Nov 2026`"""
    how = "ended" if support.is_over(today) else "until"
    following = f"; next is {_short(support.next_image)}" if support.next_image else ""
    return f"{_short(support.what)} {how} {_day(support.ends)}{following}"


def support_lines(support: Support | None, today: date, *, advise: bool = True) -> list[CardElement]:
    """What to know before the image is built once more; nothing while there is time. `advise` what to take instead."""
    if support is None or not (support.is_over(today) or support.ends_soon(today)):
        return []
    told = f"Support of {_short(support.what)} {_when(support, today)}."
    following = f" The catalog has {_short(support.next_image)}." if support.next_image and advise else ""
    return [line(run(told, bold=support.left(today) <= URGE), following)]


def support_warnings(verdicts: Iterable[Verdict], today: date) -> list[CardElement]:
    """One line for each end of support in the next 90 days, the first end first."""
    ending = [(verdict.support, verdict.name) for verdict in verdicts if verdict.support]
    ending = [(support, name) for support, name in ending if support.ends_soon(today)]
    ending.sort(key=lambda pair: _group(pair[0]))
    groups = [list(group) for _, group in groupby(ending, key=lambda pair: _group(pair[0]))]
    return [_warning(group[0][0], [name for _, name in group], today) for group in groups[:MOST_WARNINGS]]


def support_over(verdicts: Iterable[Verdict], today: date) -> list[CardElement]:
    """Which of the fresh images are out of support; the others have a row of their own that says so."""
    names = [v.name for v in verdicts if v.status is Status.FRESH and v.support and v.support.is_over(today)]
    return [line(f"Fresh, but out of support: {_several(names)}.", subtle=True)] if names else []


def support_toast(verdicts: Iterable[Verdict], today: date) -> str:
    """`; support of .NET 8.0 ends in 7 days, 10 Nov 2026` in the last week, else empty."""
    last = {
        _short(support.what): support
        for verdict in verdicts
        if (support := verdict.support) and timedelta() <= support.left(today) <= RING
    }
    return "".join(f"; support of {what} {_when(support, today)}" for what, support in last.items())


def _group(support: Support) -> tuple[date, str]:
    return support.ends, support.what


def _warning(support: Support, names: Sequence[str], today: date) -> CardElement:
    told = f"Support of {_short(support.what)} {_when(support, today)}"
    return line(run(told, bold=support.left(today) <= URGE), f": {_several(names)}.")


def _several(names: Sequence[str]) -> str:
    shown = names if len(names) <= MOST_NAMES + 1 else names[:MOST_NAMES]
    left = len(names) - len(shown)
    return ", ".join(map(_short, shown)) + (f" and {left} more" if left else "")


def _when(support: Support, today: date) -> str:
    if support.is_over(today):
        return f"ended on {_day(support.ends)}"
    days = support.left(today).days
    left = f"in {plural(days, 'day')}" if days else "today"
    return f"ends {left}, {_day(support.ends)}"


def _short(name: str) -> str:
    return clean(name, LONGEST_NAME)


def _day(day: date) -> str:
    """The same day for every reader, whatever the clock shows where they are."""
    return f"{day.day} {day:%b %Y}"
