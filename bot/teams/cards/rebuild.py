"""One rebuild, from question to result. Its card changes in place; it is never repeated."""

from collections.abc import Sequence
from datetime import datetime

from microsoft_teams.cards.core import Action, CardElement, Container, ContainerStyle

from bot.core.conversations import Subject
from bot.core.holds import Hold
from bot.core.images import PlatformImage, Version
from bot.core.people import Vote
from bot.core.rebuilds import ENDED, WITH_RUN, Cause, Rebuild, State, version_in
from bot.teams.cards import stage_approval
from bot.teams.cards.audience import EVERYBODY, Audience, refresh, view
from bot.teams.cards.card import Card, action_set, band, button, card, details, fitting, heading, line, link, run
from bot.teams.cards.children import family, remarks
from bot.teams.cards.decisions import approve, cancel, comment, reject, roll_back, start_now
from bot.teams.cards.formats import Safe, clean, duration, moment, size, time
from bot.teams.cards.hold import hold_line
from bot.teams.cards.latency import way
from bot.teams.cards.meaning import cve_lines, news_lines, support_lines
from bot.teams.cards.rollback import moving, rollback_actions, rollback_details, rollback_result
from bot.teams.cards.states import (
    approvals,
    asked,
    capital,
    digests,
    ending,
    name_of,
    sentence,
    stage_strip,
    standing,
    undecided,
    whole,
)
from bot.teams.cards.vulnerabilities import finding_lines, held_back_lines, scan_lines

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
MOST_ERRORS, ERROR_WIDTH, ERROR_ROOM, LONGEST_STEP = 5, 240, 2_000, 60
MOST_VOTES = 5
FINDINGS_ROOM = 4_500


def rebuild_card(
    rebuild: Rebuild,
    image: PlatformImage | None,
    children: Sequence[Rebuild] = (),
    *,
    hold: Hold | None = None,
    audience: Audience = EVERYBODY,
    now: datetime,
) -> Card:
    """The card of one rebuild. `image` is None when the catalog no longer has it; `hold` is in force.

    `children` are the rebuilds of images based on it.
    """
    title = heading(f"{rebuild.image} · {standing(rebuild).words}")
    style = "warning" if rebuild.waiting_approval or rebuild.held_back else STYLES.get(rebuild.state, "accent")
    body: list[CardElement] = [band(title, style=style)]
    if rebuild.stages:
        body.append(stage_strip(rebuild.stages))
    body += [
        *_meaning(rebuild, image),
        *(_failure(rebuild) if rebuild.state is State.FAILED else []),
        *support_lines(rebuild.support, now.date(), advise=rebuild.state is State.AWAITING_APPROVAL),
    ]
    if hold:
        body.append(hold_line(hold))
    asks = undecided(rebuild, now)
    body.append(_footer(rebuild, image))
    if asks:
        body += audience.who_may(rebuild.image)
    body += family(rebuild, children, audience, now)
    own = [comment(rebuild)] if asks and audience.decides(rebuild.image) else []
    form = [*own, *remarks(children, audience, now)]
    hidden, why = details(rebuild.id, *_details(rebuild, image), *form, links=cve_lines(rebuild.news))
    if rebuild.state is State.SUCCEEDED:
        hidden.items = [*(hidden.items or []), *fitting(finding_lines(rebuild.comparison), FINDINGS_ROOM)]
    again = refresh(Subject.REBUILD, rebuild.id, audience)
    return card(sentence(rebuild), [*body, hidden], [*_actions(rebuild, audience, now), why], refresh=again)


def _meaning(rebuild: Rebuild, image: PlatformImage | None) -> list[CardElement]:
    match rebuild.state:
        case State.AWAITING_APPROVAL:
            return _question(rebuild, image)
        case State.SUCCEEDED:
            return rollback_result(rebuild) if rebuild.is_rollback else _result(rebuild)
        case State.APPROVED if rebuild.waits_for_window:
            return [*_cause(rebuild), _window(rebuild)]
        case State.EXPIRED:
            again = "" if rebuild.requested_by else " The next check asks again."
            return [line("Nobody decided in time.", " No tag was moved." if rebuild.is_rollback else again)]
        case state if state in ENDED:
            successor = f" Its successor is {rebuild.successor}." if rebuild.successor else ""
            return [line(_sentence(ending(rebuild)), successor)] if ending(rebuild) else []
        case _:
            return stage_approval.question(rebuild, image) + _cause(rebuild) + _trouble(rebuild)


def _question(rebuild: Rebuild, image: PlatformImage | None) -> list[CardElement]:
    lines = _cause(rebuild)
    if votes := approvals(rebuild, image):
        lines.append(line(capital(votes), "."))
    if rebuild.expires_at:
        lines.append(line("Approve or reject until ", moment(rebuild.expires_at), ".", subtle=True))
    return lines


def _cause(rebuild: Rebuild) -> list[CardElement]:
    if rebuild.waits_for:
        waits = f"Built after {rebuild.waits_for}, on what its rebuild {rebuild.after} pushes."
        return [line(waits), *_reason(rebuild)]
    if rebuild.is_rollback:
        return [line(*moving(rebuild)), *_reason(rebuild)]
    told = {
        Cause.BASE_MOVED: "The base moved: ",
        Cause.FIRST_BUILD: "First build, on base ",
        Cause.REQUESTED: "Rebuild without asking the registry. ",
        Cause.PARENT: "Its base was rebuilt: ",
    }[rebuild.cause]
    old = rebuild.old_digest if rebuild.cause in (Cause.BASE_MOVED, Cause.PARENT) else None
    shown = digests(old, rebuild.new_digest) if rebuild.cause is not Cause.REQUESTED else []
    return [line(told, *shown), *news_lines(rebuild.news), *_reason(rebuild)]


def _reason(rebuild: Rebuild) -> list[CardElement]:
    return [line("Reason: ", rebuild.reason)] if rebuild.reason else []


def _window(rebuild: Rebuild) -> CardElement:
    if rebuild.next_attempt_at is None:
        return line("Its maintenance window does not open within a year.")
    return line("Starts when its maintenance window opens: ", moment(rebuild.next_attempt_at), ".")


def _trouble(rebuild: Rebuild) -> list[CardElement]:
    """Why nothing happens although it should."""
    if not rebuild.problem:
        return []
    told = "Not verified yet: " if rebuild.state is State.VERIFYING else "Cannot be queued yet: "
    told = "The tags cannot be moved yet: " if rebuild.is_rollback else told
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
        approved = " as approved." if rebuild.votes and rebuild.cause is not Cause.REQUESTED else "."
        lines.append(line("Built from base ", run(Safe(rebuild.new_digest.short), mono=True), approved))
    return [*lines, *scan_lines(rebuild.comparison), *held_back_lines(rebuild)]


def _failure(rebuild: Rebuild) -> list[CardElement]:
    """Where it broke, what that step called an error, and what its log says besides."""
    lines: list[CardElement] = []
    errors: tuple[str, ...] = ()
    if stage := rebuild.failed_stage:
        where = " · ".join(filter(None, (clean(stage.name, LONGEST_STEP), clean(stage.failed_step, LONGEST_STEP))))
        took = stage.finished_at - stage.started_at if stage.started_at and stage.finished_at else None
        lines.append(
            line(run(Safe(where), bold=True), f" failed after {duration(took)}." if took is not None else " failed.")
        )
        errors = stage.errors[:MOST_ERRORS]
        lines += fitting((_mono(error, ERROR_WIDTH) for error in errors), ERROR_ROOM)
    log = tuple(text for text in rebuild.log_tail if text not in errors)
    return [*lines, _log(log)] if log else lines


def _log(lines: tuple[str, ...]) -> Container:
    newest_first = fitting((_mono(text, LOG_WIDTH) for text in reversed(lines[-LOG_LINES:])), LOG_ROOM)
    return Container(items=newest_first[::-1], style="emphasis", spacing="Small")


def _mono(text: str, width: int) -> CardElement:
    return line(run(clean(text, width), mono=True, size="Small"), spacing="None")


def _footer(rebuild: Rebuild, image: PlatformImage | None) -> CardElement:
    if rebuild.state is State.AWAITING_APPROVAL:
        return line(*asked(rebuild), ".", subtle=True)
    run_number = f"run {rebuild.run_number}" if rebuild.run_number else ""
    attempt = f"attempt {rebuild.attempt}" if rebuild.attempt > 1 else ""
    started = f"started now by {name_of(rebuild.override.person)}" if rebuild.override else ""
    told = " · ".join(filter(None, (run_number, attempt, approvals(rebuild, image), started)))
    if rebuild.version_tag and rebuild.state is not State.SUCCEEDED and not rebuild.is_rollback:
        return line(clean(rebuild.version_tag, 150), " · ", clean(told), subtle=True)
    return line(clean(capital(told)), subtle=True) if told else line(*asked(rebuild), ".", subtle=True)


def _details(rebuild: Rebuild, image: PlatformImage | None) -> list[CardElement]:
    if rebuild.is_rollback:
        votes = (_act("Approved by ", vote) for vote in rebuild.votes[:MOST_VOTES])
        return [line(*asked(rebuild), "."), *votes, *rollback_details(rebuild), line(f"Rollback {rebuild.id}.")]
    lines: list[CardElement] = [
        *_anew(rebuild),
        *([action_set(link("Open run", rebuild.run_url), cancel(rebuild))] if rebuild.waiting_approval else []),
        *stage_approval.decided(rebuild),
        *([line(_sentence(rebuild.found))] if rebuild.found else []),
        line(*asked(rebuild), "."),
        *(_act("Approved by ", vote) for vote in rebuild.votes[:MOST_VOTES]),
        *([_act("Started outside its maintenance window by ", rebuild.override)] if rebuild.override else []),
        line("Base: ", run(clean(rebuild.base, 200), mono=True, subtle=True)),
        *whole("Base before", rebuild.old_digest),
        *whole("Base now", rebuild.new_digest),
        *_seen(rebuild),
    ]
    if image and rebuild.version_tag:
        lines.append(line("Image: ", run(clean(str(image.reference(rebuild.version_tag))), mono=True, subtle=True)))
    lines += whole("Pushed", rebuild.pushed_digest)
    return [*lines, line(f"Rebuild {rebuild.id}.")]


def _seen(rebuild: Rebuild) -> list[CardElement]:
    if rebuild.base_seen_at is None or rebuild.state is State.SUCCEEDED:
        return way(rebuild)
    before = [", another one last ", moment(rebuild.base_before_at)] if rebuild.base_before_at else []
    return [line("The new base was first seen ", moment(rebuild.base_seen_at), *before, ".", subtle=True)]


def _anew(rebuild: Rebuild) -> list[CardElement]:
    """The second choice where the failed stage can be retried."""
    if not _goes_on(rebuild):
        return []
    return [line("A new run begins from the start, with what the pipeline is now."), action_set(_retry_all(rebuild))]


def _act(what: str, vote: Vote) -> CardElement:
    comment = f": {vote.comment}" if vote.comment else "."
    return line(what, name_of(vote.person), ", ", moment(vote.at), comment)


def _actions(rebuild: Rebuild, audience: Audience, now: datetime) -> list[Action | None]:
    """At most two, the first being what most people want; *Why?* is the third."""
    if undecided(rebuild, now):
        own = [approve(rebuild), reject(rebuild)] if audience.decides(rebuild.image) else []
        return [*own, view(Subject.REBUILD, rebuild.id, audience)]
    if rebuild.is_rollback and rebuild.state in ENDED:
        return rollback_actions(rebuild)
    if rebuild.state is State.SUCCEEDED:
        before = Version.parse(version_in(rebuild.previous_tag))
        back = roll_back(
            rebuild.image, [str(before)] if before else [], instead_of=clean(rebuild.version_tag or "", 128)
        )
        return [link("Open run", rebuild.run_url), back]
    if rebuild.state is State.FAILED:
        retry = button("Retry failed stage", "retry", target=rebuild.id) if _goes_on(rebuild) else _retry_all(rebuild)
        return [retry, link("Open run", rebuild.run_url)]
    if rebuild.waits_for_window:
        return [start_now(rebuild), cancel(rebuild)]
    stoppable = rebuild.state is State.APPROVED or rebuild.state in WITH_RUN - {State.VERIFYING}
    return [
        link("Open run", rebuild.run_url),
        cancel(rebuild) if stoppable and not rebuild.ended_by else None,
    ]


def _goes_on(rebuild: Rebuild) -> bool:
    """Whether the run can go on at its failed stage, as far as its rebuild knows."""
    return rebuild.state is State.FAILED and rebuild.run_id is not None and rebuild.failed_stage is not None


def _retry_all(rebuild: Rebuild) -> Action:
    return button("Retry all", "rebuild", target=rebuild.image, reason=f"retry of {rebuild.id}")


def _sentence(text: str) -> str:
    text = clean(text)
    return capital(text) + ("" if text.endswith((".", "…")) else ".")
