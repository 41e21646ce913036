"""One rebuild, from question to result. Its card changes in place; it is never repeated."""

from datetime import datetime

from microsoft_teams.cards.core import Action, CardElement, Container, ContainerStyle

from bot.core.images import PlatformImage
from bot.core.rebuilds import WITH_RUN, Cause, Rebuild, State
from bot.teams.cards.card import Card, band, button, card, details, heading, line, link, run
from bot.teams.cards.decisions import approve, cancel, reject
from bot.teams.cards.formats import Safe, clean, duration, moment, size, time
from bot.teams.cards.states import (
    approvals,
    asked,
    decidable,
    digests,
    sentence,
    stage_strip,
    standing,
    whole,
)

STYLES: dict[State, ContainerStyle] = {
    State.AWAITING_APPROVAL: "warning",
    State.SUCCEEDED: "good",
    State.FAILED: "attention",
    State.REJECTED: "emphasis",
    State.CANCELLED: "emphasis",
    State.EXPIRED: "emphasis",
    State.SUPERSEDED: "emphasis",
}
LOG_LINES, LOG_WIDTH = 12, 160
MOST_VOTES = 5


def rebuild_card(rebuild: Rebuild, image: PlatformImage | None, *, now: datetime) -> Card:
    """The card of one rebuild. `image` is None when the catalog no longer has it."""
    title = heading(f"{rebuild.image} · {standing(rebuild).words}")
    body: list[CardElement] = [band(title, style=STYLES.get(rebuild.state, "accent"))]
    if rebuild.stages:
        body.append(stage_strip(rebuild.stages))
    body += _meaning(rebuild, image)
    if rebuild.log_tail:
        body.append(_log(rebuild.log_tail))
    body.append(_footer(rebuild, image))
    hidden, why = details(rebuild.id, *_details(rebuild, image))
    return card(sentence(rebuild), [*body, hidden], [*_actions(rebuild, now), why])


def _meaning(rebuild: Rebuild, image: PlatformImage | None) -> list[CardElement]:
    match rebuild.state:
        case State.AWAITING_APPROVAL:
            return _question(rebuild, image)
        case State.SUCCEEDED:
            return _result(rebuild)
        case State.REJECTED:
            who = rebuild.ended_by.name if rebuild.ended_by else "somebody"
            return [line("Rejected by ", clean(who, 60), ": ", rebuild.ended_reason)]
        case State.EXPIRED:
            return [line("Nobody decided in time. The next check asks again.")]
        case State.FAILED | State.CANCELLED | State.SUPERSEDED:
            return [line(_sentence(rebuild.ended_reason))] if rebuild.ended_reason else []
        case _:
            return _cause(rebuild) + _trouble(rebuild)


def _question(rebuild: Rebuild, image: PlatformImage | None) -> list[CardElement]:
    lines = _cause(rebuild)
    if votes := approvals(rebuild, image):
        lines.append(line(votes[0].upper() + votes[1:] + "."))
    if rebuild.expires_at:
        lines.append(line("Approve or reject until ", moment(rebuild.expires_at), ".", subtle=True))
    return lines


def _cause(rebuild: Rebuild) -> list[CardElement]:
    told = {
        Cause.BASE_MOVED: "The base moved: ",
        Cause.FIRST_BUILD: "First build, on base ",
        Cause.REQUESTED: "Rebuild without asking the registry. ",
    }[rebuild.cause]
    old = rebuild.old_digest if rebuild.cause is Cause.BASE_MOVED else None
    shown = digests(old, rebuild.new_digest) if rebuild.cause is not Cause.REQUESTED else []
    lines: list[CardElement] = [line(told, *shown)]
    if rebuild.reason:
        lines.append(line("Reason: ", rebuild.reason))
    return lines


def _trouble(rebuild: Rebuild) -> list[CardElement]:
    """Why nothing happens although it should."""
    if not rebuild.problem:
        return []
    told = "Not in ECR yet: " if rebuild.state is State.VERIFYING else "Cannot be queued yet: "
    again = [" Next try ", time(rebuild.next_attempt_at), "."] if rebuild.next_attempt_at else []
    return [line(run(Safe(told), bold=True, color="Warning"), _sentence(rebuild.problem), *again)]


def _result(rebuild: Rebuild) -> list[CardElement]:
    parts: list[str] = []
    if rebuild.pushed_size is not None:
        parts.append(size(rebuild.pushed_size, rebuild.previous_size))
    if rebuild.queued_at and rebuild.run_finished_at:
        parts.append(f"took {duration(rebuild.run_finished_at - rebuild.queued_at)}")
    lines: list[CardElement] = []
    if rebuild.pushed_digest:
        lines.append(
            line("Digest ", run(Safe(rebuild.pushed_digest.short), mono=True), "".join(f" · {p}" for p in parts))
        )
    if rebuild.new_digest:
        lines.append(line("Built from base ", run(Safe(rebuild.new_digest.short), mono=True), " as approved."))
    return lines


def _log(lines: tuple[str, ...]) -> Container:
    shown = [line(run(clean(text, LOG_WIDTH), mono=True, size="Small"), spacing="None") for text in lines[-LOG_LINES:]]
    return Container(items=list(shown), style="emphasis", spacing="Small")


def _footer(rebuild: Rebuild, image: PlatformImage | None) -> CardElement:
    parts = [
        rebuild.version_tag if rebuild.version_tag and rebuild.state is not State.SUCCEEDED else "",
        f"run {rebuild.run_number}" if rebuild.run_number else "",
        approvals(rebuild, image) if rebuild.state is not State.AWAITING_APPROVAL else "",
    ]
    told = " · ".join(filter(None, parts))
    if told:
        return line(clean(told, 500), subtle=True)
    return line(*asked(rebuild), subtle=True)


def _details(rebuild: Rebuild, image: PlatformImage | None) -> list[CardElement]:
    lines: list[CardElement] = [
        line(*asked(rebuild), "."),
        *(
            line(
                "Approved by ",
                clean(vote.person.name, 60),
                ", ",
                moment(vote.at),
                f": {vote.comment}" * bool(vote.comment),
            )
            for vote in rebuild.votes[:MOST_VOTES]
        ),
        line("Base ", run(clean(rebuild.base, 200), mono=True, subtle=True)),
        *whole("Base before", rebuild.old_digest),
        *whole("Base now", rebuild.new_digest),
    ]
    if image and rebuild.version_tag:
        lines.append(line("Image ", run(clean(str(image.reference(rebuild.version_tag)), 300), mono=True, subtle=True)))
    lines += whole("Pushed", rebuild.pushed_digest)
    successor = f" Rebuild {rebuild.successor} took over." if rebuild.successor else ""
    return [*lines, line(f"Rebuild {rebuild.id}.{successor}")]


def _actions(rebuild: Rebuild, now: datetime) -> list[Action | None]:
    """At most two, the first being what most people want; *Why?* is the third."""
    if decidable(rebuild, now):
        return [approve(rebuild), reject(rebuild)]
    if rebuild.state is State.FAILED:
        retry = button("Retry", "rebuild", target=rebuild.image, reason=f"retry of {rebuild.id}")
        return [retry, link("Open run", rebuild.run_url)]
    stoppable = rebuild.state is State.APPROVED or rebuild.state in WITH_RUN - {State.VERIFYING}
    return [
        link("Open run", rebuild.run_url),
        cancel(rebuild) if stoppable and not rebuild.ended_by else None,
    ]


def _sentence(text: str) -> str:
    text = clean(text)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "…")) else ".")
