"""One rebuild, from question to result. Its card changes in place; it is never repeated."""

from datetime import datetime

from microsoft_teams.cards.core import Action, CardElement, Container, ContainerStyle

from bot.core.holds import Hold
from bot.core.images import PlatformImage
from bot.core.rebuilds import ENDED, WITH_RUN, Cause, Rebuild, State, Vote
from bot.teams.cards.card import Card, band, button, card, details, fitting, heading, line, link, run, text_input
from bot.teams.cards.decisions import approve, cancel, reject, start_now
from bot.teams.cards.formats import Safe, clean, duration, moment, size, time
from bot.teams.cards.hold import hold_line
from bot.teams.cards.states import (
    approvals,
    asked,
    capital,
    decidable,
    digests,
    ending,
    name_of,
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
LOG_LINES, LOG_WIDTH, LOG_ROOM = 12, 160, 4_000
MOST_VOTES = 5


def rebuild_card(rebuild: Rebuild, image: PlatformImage | None, *, hold: Hold | None = None, now: datetime) -> Card:
    """The card of one rebuild. `image` is None when the catalog no longer has it; `hold` is in force."""
    title = heading(f"{rebuild.image} · {standing(rebuild).words}")
    body: list[CardElement] = [band(title, style=STYLES.get(rebuild.state, "accent"))]
    if rebuild.stages:
        body.append(stage_strip(rebuild.stages))
    body += _meaning(rebuild, image)
    if hold:
        body.append(hold_line(hold))
    if rebuild.state is State.FAILED and rebuild.log_tail:
        body.append(_log(rebuild.log_tail))
    body.append(_footer(rebuild, image))
    comment = [text_input("comment", rebuild.id, label="Comment for the approval")] if decidable(rebuild, now) else []
    hidden, why = details(rebuild.id, *_details(rebuild, image), *comment)
    return card(sentence(rebuild), [*body, hidden], [*_actions(rebuild, now), why])


def _meaning(rebuild: Rebuild, image: PlatformImage | None) -> list[CardElement]:
    match rebuild.state:
        case State.AWAITING_APPROVAL:
            return _question(rebuild, image)
        case State.SUCCEEDED:
            return _result(rebuild)
        case State.APPROVED if rebuild.waits_for_window:
            return [*_cause(rebuild), _window(rebuild)]
        case State.EXPIRED:
            return [line("Nobody decided in time. The next check asks again.")]
        case state if state in ENDED:
            successor = f" Rebuild {rebuild.successor} asks again." if rebuild.successor else ""
            return [line(_sentence(ending(rebuild)), successor)] if ending(rebuild) else []
        case _:
            return _cause(rebuild) + _trouble(rebuild)


def _question(rebuild: Rebuild, image: PlatformImage | None) -> list[CardElement]:
    lines = _cause(rebuild)
    if votes := approvals(rebuild, image):
        lines.append(line(capital(votes), "."))
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


def _window(rebuild: Rebuild) -> CardElement:
    if rebuild.next_attempt_at is None:
        return line("Its maintenance window does not open within a year.")
    return line("Starts when its maintenance window opens: ", moment(rebuild.next_attempt_at), ".")


def _trouble(rebuild: Rebuild) -> list[CardElement]:
    """Why nothing happens although it should."""
    if not rebuild.problem:
        return []
    told = "Not verified yet: " if rebuild.state is State.VERIFYING else "Cannot be queued yet: "
    again = [" Next try ", time(rebuild.next_attempt_at), "."] if rebuild.next_attempt_at else []
    trouble = line(run(Safe(told), bold=True), _sentence(rebuild.problem), *again)
    return [Container(items=[trouble], style="warning", spacing="Small")]


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
    newest_first = fitting(reversed(shown), LOG_ROOM)
    return Container(items=newest_first[::-1], style="emphasis", spacing="Small")


def _footer(rebuild: Rebuild, image: PlatformImage | None) -> CardElement:
    if rebuild.state is State.AWAITING_APPROVAL:
        return line(*asked(rebuild), ".", subtle=True)
    run_number = f"run {rebuild.run_number}" if rebuild.run_number else ""
    started = f"started now by {name_of(rebuild.override.person)}" if rebuild.override else ""
    told = " · ".join(filter(None, (run_number, approvals(rebuild, image), started)))
    if rebuild.version_tag and rebuild.state is not State.SUCCEEDED:
        return line(clean(rebuild.version_tag, 150), " · ", clean(told), subtle=True)
    return line(clean(capital(told)), subtle=True) if told else line(*asked(rebuild), ".", subtle=True)


def _details(rebuild: Rebuild, image: PlatformImage | None) -> list[CardElement]:
    lines: list[CardElement] = [
        line(*asked(rebuild), "."),
        *(_act("Approved by ", vote) for vote in rebuild.votes[:MOST_VOTES]),
        *([_act("Started outside its maintenance window by ", rebuild.override)] if rebuild.override else []),
        line("Base: ", run(clean(rebuild.base, 200), mono=True, subtle=True)),
        *whole("Base before", rebuild.old_digest),
        *whole("Base now", rebuild.new_digest),
    ]
    if image and rebuild.version_tag:
        lines.append(line("Image: ", run(clean(str(image.reference(rebuild.version_tag))), mono=True, subtle=True)))
    lines += whole("Pushed", rebuild.pushed_digest)
    return [*lines, line(f"Rebuild {rebuild.id}.")]


def _act(what: str, vote: Vote) -> CardElement:
    comment = f": {vote.comment}" if vote.comment else "."
    return line(what, name_of(vote.person), ", ", moment(vote.at), comment)


def _actions(rebuild: Rebuild, now: datetime) -> list[Action | None]:
    """At most two, the first being what most people want; *Why?* is the third."""
    if decidable(rebuild, now):
        return [approve(rebuild), reject(rebuild)]
    if rebuild.state is State.FAILED:
        retry = button("Retry", "rebuild", target=rebuild.image, reason=f"retry of {rebuild.id}")
        return [retry, link("Open run", rebuild.run_url)]
    if rebuild.waits_for_window:
        return [start_now(rebuild), cancel(rebuild)]
    stoppable = rebuild.state is State.APPROVED or rebuild.state in WITH_RUN - {State.VERIFYING}
    return [
        link("Open run", rebuild.run_url),
        cancel(rebuild) if stoppable and not rebuild.ended_by else None,
    ]


def _sentence(text: str) -> str:
    text = clean(text)
    return capital(text) + ("" if text.endswith((".", "…")) else ".")
