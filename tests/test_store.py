"""The store, on SQLite and on PostgreSQL: what is written together, who wins, and what is owed to whom."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import update
from sqlalchemy.ext.asyncio import create_async_engine

from bot.core.base_news import BaseNews, Cve, NewsKind
from bot.core.checks import Check, Evidence, Requests, Status, Verdict
from bot.core.conversations import Announcement, Conversation, ConversationKind, DueCard, Subject
from bot.core.findings import Comparison, Finding, Group, ScanState, Severity
from bot.core.holds import Hold, HoldKind
from bot.core.images import Digest
from bot.core.people import Person, Vote
from bot.core.rebuilds import AuditEntry, Cause, Rebuild, State, TagMove, new_id
from bot.core.runs import Stage, StageApproval, StageApprovalState, StageState
from bot.core.support import Support
from bot.errors import ConfigError, Conflict
from bot.store.checks import CLAIM_LEASE
from bot.store.store import SqlStore
from bot.store.tables import holds, metadata
from tests.conftest import MONDAY
from tests.peers import postgresql

HOUR, WEEK = timedelta(hours=1), timedelta(days=7)
SDK, ASPNET = "dotnet-sdk-6", "dotnet-aspnet-6"
OLD, NEW, NEWEST = (Digest(f"sha256:{character * 64}") for character in "abc")
ALEX = Person(id="a1", name="Alex Wilber", mri="29:a1", principal_name="alex.wilber@contoso.com")

Open = Callable[[], Awaitable[SqlStore]]


@pytest.fixture(scope="session")
def server() -> Iterator[postgresql.PostgreSql]:
    try:
        with postgresql.running() as server:
            yield server
    except postgresql.NotHere as error:
        pytest.skip(str(error))


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path}/store.db"
    server: postgresql.PostgreSql = request.getfixturevalue("server")
    return await server.fresh()


@pytest.fixture
async def open_store(url: str) -> AsyncIterator[Open]:
    """Opens the same database again and again, as a restart or another replica does."""
    stores: list[SqlStore] = []

    async def open_store() -> SqlStore:
        stores.append(await SqlStore(url).__aenter__())
        return stores[-1]

    yield open_store
    for store in stores:
        await store.__aexit__()


@pytest.fixture
async def store(open_store: Open) -> SqlStore:
    return await open_store()


def question(image: str = SDK, **changes: Any) -> Rebuild:
    """A rebuild that waits for an approval."""
    rebuild = Rebuild(
        id=new_id(),
        image=image,
        state=State.AWAITING_APPROVAL,
        cause=Cause.BASE_MOVED,
        base="mcr.microsoft.com/dotnet/sdk:6.0-bullseye-slim",
        old_digest=OLD,
        new_digest=NEW,
        created_at=MONDAY,
        expires_at=MONDAY + WEEK,
    )
    return replace(rebuild, **changes)


def entry(rebuild: Rebuild, action: str = "test") -> AuditEntry:
    return AuditEntry(at=MONDAY, actor=ALEX, action=action, image=rebuild.image, rebuild_id=rebuild.id)


async def add(store: SqlStore, rebuild: Rebuild, *show: Subject) -> Rebuild:
    await store.add_rebuild(rebuild, entry(rebuild, "ask"), show)
    return rebuild


async def actions(store: SqlStore) -> list[str]:
    return [row["action"] for row in await store.audit_rows()]


def place(name: str, *images: str, subscribed: bool = True) -> Conversation:
    return Conversation(
        id=name,
        service_url="https://smba.trafficmanager.net/emea/",
        kind=ConversationKind.CHANNEL,
        tenant_id="tenant",
        subscribed=subscribed,
        images=images,
    )


async def keep(store: SqlStore, conversation: Conversation) -> None:
    """Add or replace a conversation."""
    await store.change_conversation(conversation.id, lambda _: conversation)


def wanted(cards: list[DueCard]) -> list[tuple[str, str]]:
    return [(card.conversation.id, card.subject) for card in cards]


# One open rebuild per image


async def test_one_open_rebuild_per_image(store: SqlStore) -> None:
    """A second open rebuild of an image is refused without a trace; one of another image, or after the end, is not."""
    first = await add(store, question())
    with pytest.raises(Conflict, match=SDK):
        await add(store, question())
    assert await actions(store) == ["ask"]
    await add(store, question(ASPNET))
    await store.save_rebuild(first.move(State.REJECTED, MONDAY))
    second = await add(store, question())
    assert await store.open_rebuild(SDK) == second


async def test_a_rebuild_reopens_only_while_no_other_is_open(store: SqlStore) -> None:
    """A failed rebuild that is to run again is refused while its image has an open one, and keeps its row."""
    failed = replace(question(), state=State.FAILED)
    await add(store, failed)
    other = await add(store, question())
    with pytest.raises(Conflict, match="another open rebuild"):
        await store.save_rebuild(failed.retry(ALEX, MONDAY), entry(failed, "retry"))
    assert await actions(store) == ["ask", "ask"]
    assert await store.rebuild(failed.id) == failed
    await store.save_rebuild(other.move(State.CANCELLED, MONDAY))
    again = await store.save_rebuild(failed.retry(ALEX, MONDAY))
    assert await store.open_rebuild(SDK) == again


async def test_twenty_requests_at_once_are_one(open_store: Open) -> None:
    """Of twenty that open a rebuild of the same image at the same moment, over two replicas, one wins."""
    stores = [await open_store(), await open_store()]
    attempts = [add(stores[number % 2], question()) for number in range(20)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    won = [result for result in results if isinstance(result, Rebuild)]
    assert len(won) == 1
    assert all(isinstance(result, Rebuild | Conflict) for result in results)
    assert await stores[0].open_rebuild(SDK) == won[0]
    assert await actions(stores[0]) == ["ask"]


# Revisions


async def test_who_read_an_old_revision_writes_nothing(store: SqlStore) -> None:
    """The first writer gets the next revision; the second, who read the same, gets a Conflict and no audit row."""
    read = await add(store, question())
    approved = await store.save_rebuild(read.move(State.APPROVED, MONDAY), entry(read, "approve"))
    assert approved.revision == read.revision + 1
    with pytest.raises(Conflict, match=read.id):
        await store.save_rebuild(read.move(State.REJECTED, MONDAY), entry(read, "reject"), (Subject.REBUILD,))
    assert await store.rebuild(read.id) == approved
    assert await actions(store) == ["ask", "approve"]
    assert await store.due_cards(MONDAY) == []


async def test_rebuild_that_does_not_exist_is_a_conflict(store: SqlStore) -> None:
    """Saving what was never added changes nothing."""
    with pytest.raises(Conflict):
        await store.save_rebuild(question())
    assert await store.open_rebuild(SDK) is None


async def test_twenty_writers_of_one_rebuild(open_store: Open) -> None:
    """Twenty writers that read again after a Conflict all get through, each with a revision of its own."""
    stores = [await open_store(), await open_store()]
    rebuild = await add(stores[0], question())

    async def vote(number: int) -> None:
        store = stores[number % 2]
        while True:
            present = await store.rebuild(rebuild.id)
            assert present is not None
            person = Person(id=f"p{number}", name=f"Person {number}")
            votes = (*present.votes, Vote(person=person, at=MONDAY))
            try:
                await store.save_rebuild(replace(present, votes=votes), entry(present, f"vote {number}"))
            except Conflict:
                continue
            return

    async with asyncio.timeout(20):
        await asyncio.gather(*map(vote, range(20)))
    final = await stores[0].rebuild(rebuild.id)
    assert final is not None
    assert final.revision == 21
    assert {vote.person.id for vote in final.votes} == {f"p{number}" for number in range(20)}
    assert sorted(await actions(stores[1])) == sorted(["ask", *(f"vote {number}" for number in range(20))])


async def test_twenty_writers_of_different_things(open_store: Open) -> None:
    """Rebuilds, checks, conversations and documents written at once by two replicas are all there."""
    stores = [await open_store(), await open_store()]

    async def write(number: int) -> None:
        store = stores[number % 2]
        image = f"image-{number}"
        rebuild = await add(store, question(image), Subject.REBUILD)
        await keep(store, place(f"conversation-{number}"))
        await store.put(Digest(f"sha256:{number:064x}"), b"{}")
        await store.seen({image: NEW, "shared": NEW}, MONDAY)
        verdicts = (verdict(image, rebuild_id=rebuild.id), verdict("shared"))
        await store.add_check(Check(checked_at=MONDAY, verdicts=verdicts), everywhere=True)
        await store.save_rebuild(rebuild.move(State.APPROVED, MONDAY), entry(rebuild, "approve"))

    async with asyncio.timeout(20):
        await asyncio.gather(*map(write, range(20)))
    assert len(await stores[0].rebuilds(states={State.APPROVED})) == 20
    assert await stores[1].reach() == (20, 0)
    assert len(await stores[0].latest_verdicts()) == 21
    assert len(await stores[1].audit_rows()) == 40


# Superseding


async def test_superseding_is_one_step(store: SqlStore) -> None:
    """The old request ends and the new one is open, with its card, or nothing happens at all."""
    await keep(store, place("channel"))
    old = await add(store, question())
    new = question(new_digest=NEWEST)
    ended = replace(old.move(State.SUPERSEDED, MONDAY), successor=new.id)
    await store.supersede(ended, new, entry(new, "supersede"), show=(Subject.REBUILD,))
    assert await store.open_rebuild(SDK) == new
    assert await store.rebuild(old.id) == replace(ended, revision=2)
    assert [card.subject_id for card in await store.due_cards(MONDAY)] == [new.id]
    assert await actions(store) == ["ask", "supersede"]


async def test_superseding_what_moved_on_does_nothing(store: SqlStore) -> None:
    """When somebody approved the old request meanwhile, it stays, and no new one appears."""
    old = await add(store, question())
    approved = await store.save_rebuild(old.move(State.APPROVED, MONDAY))
    new = question(new_digest=NEWEST)
    with pytest.raises(Conflict):
        await store.supersede(old.move(State.SUPERSEDED, MONDAY), new, entry(new, "supersede"))
    assert await store.open_rebuild(SDK) == approved
    assert await store.rebuild(new.id) is None
    assert await actions(store) == ["ask"]


async def test_superseding_that_fails_half_way_is_undone(store: SqlStore) -> None:
    """If the new request cannot be added, the old one has not ended."""
    old, other = await add(store, question()), await add(store, question(ASPNET))
    with pytest.raises(Conflict):
        await store.supersede(old.move(State.SUPERSEDED, MONDAY), replace(other, id=new_id()), entry(old, "supersede"))
    assert await store.open_rebuild(SDK) == old
    assert await actions(store) == ["ask", "ask"]


# What is kept, and how it is found


WHOLE = Rebuild(
    id="abcd2345",
    image=SDK,
    state=State.FAILED,
    cause=Cause.REQUESTED,
    base="mcr.microsoft.com/dotnet/sdk:6.0",
    old_digest=OLD,
    new_digest=NEW,
    reason="hardening ✓ 'quoted' \"twice\" \\ <b>",
    check_id=3,
    conversation_id="19:x@thread.tacv2",
    requested_by=ALEX,
    votes=(Vote(person=ALEX, at=MONDAY, comment="fine"), Vote(person=Person(id="b", name="B"), at=MONDAY)),
    expires_at=MONDAY + WEEK,
    reminded_at=MONDAY + timedelta(days=1),
    override=Vote(person=ALEX, at=MONDAY, comment="security"),
    ended_by=ALEX,
    ended_reason="the test failed",
    successor="efgh6789",
    after="jkmn2345",
    waits_for="dotnet-runtime-8",
    found="the base moved for linux/amd64 (label)",
    base_seen_at=MONDAY,
    base_before_at=MONDAY - WEEK,
    offered=True,
    version_tag="6.0-bullseye-slim-1.4.0",
    run_id=42,
    run_number="20261123.1-abcd2345",
    run_url="https://dev.azure.com/contoso/_build/results?buildId=42",
    run_project="platform-images",
    queue_attempts=2,
    next_attempt_at=MONDAY + HOUR,
    problem="Azure DevOps answered 503",
    stages=(
        Stage(name="Build", state=StageState.SUCCEEDED, started_at=MONDAY, finished_at=MONDAY + HOUR),
        Stage(
            name="Test",
            state=StageState.FAILED,
            ref_name="test",
            attempt=2,
            failed_step="Run it",
            log_id=7,
            errors=("500",),
            approval_ids=("44444444-eeee-4eee-8eee-444444444444",),
        ),
    ),
    stage_approvals=(
        StageApproval(
            id="44444444-eeee-4eee-8eee-444444444444",
            stage="Test",
            state=StageApprovalState.APPROVED,
            instructions="Announced?",
            approvers=("Alex",),
            votes=(Vote(person=ALEX, at=MONDAY, comment="yes"),),
            decided_by="Shipshape",
            comment="Alex in Teams: yes",
        ),
    ),
    log_tail=("line one", "line two"),
    previous_digest=OLD,
    comparison=Comparison(
        state=ScanState.DONE,
        fixed=Group(
            counts={Severity.CRITICAL: 2},
            worst=(Finding(name="CVE-2026-1", severity=Severity.CRITICAL, uri="https://cve.example", package="perl"),),
        ),
        old_scan=MONDAY,
    ),
    hold_back=Severity.HIGH,
    news=BaseNews(
        kind=NewsKind.RELEASE,
        old_version="6.0.33",
        new_version="6.0.35",
        security=True,
        cves=(Cve(id="CVE-2024-43483", url="https://cve.example/CVE-2024-43483"),),
    ),
    support=Support(what=".NET 6.0", ends=date(2024, 11, 12), next_image="dotnet-sdk-8"),
    attempt=2,
    retried_by=(ALEX,),
    retry_until=MONDAY + HOUR,
    pushed_digest=NEWEST,
    pushed_size=123_456_789_012,
    previous_size=1,
    previous_tag="6.0-bullseye-slim-1.3.0",
    target=OLD,
    moves=(TagMove(tag="latest", old=NEW, new=OLD),),
    created_at=MONDAY,
    approved_at=MONDAY,
    queued_at=MONDAY + timedelta(microseconds=1),
    run_finished_at=MONDAY,
    ended_at=MONDAY,
    revision=1,
)


async def test_rows_survive_reopening(open_store: Open) -> None:
    """Every field of a rebuild, a check, a conversation and an audit row is the same after a restart."""
    first = await open_store()
    assert all(getattr(WHOLE, field.name) not in (None, (), "") for field in fields(WHOLE))
    entry_ = AuditEntry(at=MONDAY, actor=ALEX, action="ask", image=SDK, comment="ok", extra={"run": "42"})
    await first.add_rebuild(WHOLE, entry_)
    await keep(first, place("channel", SDK))
    check = await first.add_check(
        Check(
            checked_at=MONDAY,
            slot=MONDAY,
            verdicts=(
                verdict(SDK, rebuild_id=WHOLE.id, news=WHOLE.news, support=WHOLE.support),
                verdict(ASPNET, status=Status.UNKNOWN),
            ),
            requests=Requests(registry=2, ecr=3),
            problem="none",
        ),
        everywhere=True,
    )
    await first.put(NEW, b"\x00\xff document")
    await first.__aexit__()

    again = await open_store()
    assert await again.rebuild(WHOLE.id) == WHOLE
    assert await again.check(check.id) == await again.latest_check() == check
    assert await again.conversation("channel") == place("channel", SDK)
    assert await again.latest_verdict(SDK) == (MONDAY, check.verdicts[0])
    assert await again.get(NEW) == b"\x00\xff document"
    (row,) = await again.audit_rows()
    assert (row["at"], row["actor_id"], row["actor_principal_name"]) == (MONDAY, "a1", "alex.wilber@contoso.com")
    assert (row["comment"], row["extra"]) == ("ok", {"run": "42"})
    assert row["at"].tzinfo is UTC or row["at"].utcoffset() == timedelta(0)


async def test_times_are_kept_in_utc(store: SqlStore) -> None:
    """A time of another zone comes back as the same moment; one without a zone is refused."""
    madrid = timezone(timedelta(hours=1))
    await store.audit(AuditEntry(at=MONDAY.astimezone(madrid), actor=None, action="note"))
    (row,) = await store.audit_rows()
    assert (row["at"], row["at"].utcoffset()) == (MONDAY, timedelta(0))
    assert (row["actor_id"], row["actor_name"]) == ("shipshape", "Shipshape")
    with pytest.raises(Exception, match="times are kept with their zone"):
        await store.claim_slot(datetime(2026, 11, 23), MONDAY)  # noqa: DTZ001 -- what is refused


async def test_rebuilds_are_found(store: SqlStore) -> None:
    """By state oldest first, by id, by image newest first, and which digests were rejected."""
    assert await store.rebuild("zzzz9999") is None
    ids = []
    for number in range(3):
        at = MONDAY + number * HOUR
        rebuild = await add(store, question(created_at=at, new_digest=(OLD, NEW, NEWEST)[number]))
        ids.append(rebuild.id)
        if number < 2:
            await store.save_rebuild(rebuild.move((State.REJECTED, State.EXPIRED)[number], at))
    await add(store, question(ASPNET, created_at=MONDAY + 4 * HOUR))

    assert [rebuild.id for rebuild in await store.history(SDK, 2)] == [ids[2], ids[1]]
    assert [rebuild.image for rebuild in await store.history(None, 10)] == [ASPNET, SDK, SDK, SDK]
    waiting = await store.rebuilds(states={State.AWAITING_APPROVAL})
    assert [rebuild.image for rebuild in waiting] == [SDK, ASPNET]
    assert await store.rebuilds(states=set()) == []
    assert set(await store.rebuilds_by_id([ids[0], ids[2], "zzzz9999"])) == {ids[0], ids[2]}
    assert await store.rebuilds_by_id([]) == {}
    assert await store.rejected(SDK) == [OLD]
    assert await store.rejected(ASPNET) == []


async def test_documents_are_kept_once(store: SqlStore) -> None:
    """A document is there after it was put, and putting it again, even by many at once, is no trouble."""
    assert await store.get(NEW) is None
    await asyncio.gather(*(store.put(NEW, b"content") for _ in range(10)))
    assert await store.get(NEW) == b"content"


# Checks


def verdict(image: str, **changes: Any) -> Verdict:
    made = Verdict(
        name=image,
        status=Status.STALE,
        reason="the base moved",
        base="mcr.microsoft.com/dotnet/sdk:6.0",
        recorded_digest=OLD,
        current_digest=NEW,
        evidence=Evidence.LABEL,
        version_tag="6.0-1.3.0",
        pushed_at=MONDAY,
        size=5_000_000_000,
        first_seen=MONDAY,
        moved_after=MONDAY - WEEK,
    )
    return replace(made, **changes)


async def test_card_of_a_check_follows_states_only(store: SqlStore) -> None:
    """A check's revision grows when one of its rebuilds changes state, not with a step of a run or another image."""
    rebuild, other = await add(store, question()), await add(store, question(ASPNET))
    check = await store.add_check(
        Check(checked_at=MONDAY, verdicts=(verdict(SDK, rebuild_id=rebuild.id), verdict(ASPNET))), everywhere=False
    )

    async def revision() -> int:
        found = await store.check(check.id)
        assert found is not None
        return found.revision

    assert await revision() == 1
    approved = await store.save_rebuild(rebuild.move(State.APPROVED, MONDAY))
    assert await revision() == 2
    tried = await store.save_rebuild(replace(approved, queue_attempts=1))
    await store.save_rebuild(other.move(State.APPROVED, MONDAY))
    assert await revision() == 2
    with pytest.raises(Conflict):
        await store.save_rebuild(approved.move(State.CANCELLED, MONDAY))
    assert await revision() == 2
    await store.save_rebuild(tried.move(State.QUEUED, MONDAY))
    assert await revision() == 3


async def test_check_that_meets_an_open_rebuild_follows_it_too(store: SqlStore) -> None:
    """Two checks that show the same rebuild both follow it."""
    rebuild = await add(store, question())
    found = (verdict(SDK, rebuild_id=rebuild.id),)
    first = await store.add_check(Check(checked_at=MONDAY, verdicts=found), everywhere=False)
    second = await store.add_check(Check(checked_at=MONDAY + HOUR, verdicts=found), everywhere=False)
    await store.save_rebuild(rebuild.move(State.EXPIRED, MONDAY + WEEK))
    for check in (first, second):
        now = await store.check(check.id)
        assert now is not None
        assert now.revision == 2


async def test_latest_verdicts(store: SqlStore) -> None:
    """A check of some images replaces what is known of these and leaves the others."""
    both = (verdict(SDK), verdict(ASPNET))
    await store.add_check(Check(checked_at=MONDAY, verdicts=both), everywhere=False)
    fresh = verdict(SDK, status=Status.FRESH)
    await store.add_check(Check(checked_at=MONDAY + HOUR, verdicts=(fresh,)), everywhere=False)
    assert await store.latest_verdicts() == {SDK: (MONDAY + HOUR, fresh), ASPNET: (MONDAY, both[1])}
    assert await store.latest_verdict("unknown") is None


async def test_when_everybody_was_told(store: SqlStore) -> None:
    """The newest check that went to all, also when it failed."""
    assert await store.last_told() is None
    assert await store.latest_check() is None
    first = await store.add_check(Check(checked_at=MONDAY), everywhere=True)
    await store.add_check(Check(checked_at=MONDAY + HOUR), everywhere=False)
    assert await store.last_told() == first
    failed = await store.add_check(Check(checked_at=MONDAY + 2 * HOUR, problem="broken"), everywhere=True)
    assert await store.last_told() == failed
    latest = await store.latest_check()
    assert latest is not None
    assert latest.problem == "broken"


async def test_digests_that_were_seen(store: SqlStore) -> None:
    """The first sight of a digest is kept, with the last moment at which the base had another one."""
    first = await store.seen({"sdk": OLD, "aspnet": OLD}, MONDAY)
    assert (first["sdk"].first_seen, first["sdk"].other_last_seen) == (MONDAY, None)
    again = await store.seen({"sdk": OLD}, MONDAY + HOUR)
    assert (again["sdk"].first_seen, again["sdk"].other_last_seen) == (MONDAY, None)
    moved = await store.seen({"sdk": NEW, "aspnet": OLD}, MONDAY + 2 * HOUR)
    assert (moved["sdk"].first_seen, moved["sdk"].other_last_seen) == (MONDAY + 2 * HOUR, MONDAY + HOUR)
    assert (moved["aspnet"].first_seen, moved["aspnet"].other_last_seen) == (MONDAY, None)
    later = await store.seen({"sdk": NEW}, MONDAY + WEEK)
    assert later["sdk"] == moved["sdk"]
    assert await store.seen({}, MONDAY) == {}


# Slots


async def test_first_slot_of_a_new_database_is_done(store: SqlStore) -> None:
    """It was before the database's time; the next one is to do, once."""
    assert not await store.claim_slot(MONDAY, MONDAY)
    assert not await store.claim_slot(MONDAY, MONDAY + CLAIM_LEASE)
    assert await store.claim_slot(MONDAY + WEEK, MONDAY + WEEK)
    assert not await store.claim_slot(MONDAY + WEEK, MONDAY + WEEK)


async def test_slot_is_finished_by_its_check(store: SqlStore) -> None:
    """After its check a slot is never to do again; an older one neither."""
    await store.claim_slot(MONDAY, MONDAY)
    slot = MONDAY + 2 * WEEK
    assert await store.claim_slot(slot, slot)
    await store.add_check(Check(checked_at=slot, slot=slot), everywhere=False)
    assert not await store.claim_slot(slot, slot + CLAIM_LEASE)
    assert not await store.claim_slot(MONDAY + WEEK, slot + CLAIM_LEASE)


async def test_claimed_slot_is_taken_over_after_its_lease(store: SqlStore) -> None:
    """Who claims and dies holds the slot for the lease; then one other gets it, for a lease of its own."""
    await store.claim_slot(MONDAY, MONDAY)
    slot = MONDAY + WEEK
    assert await store.claim_slot(slot, slot)
    assert not await store.claim_slot(slot, slot + CLAIM_LEASE - timedelta(seconds=1))
    assert await store.claim_slot(slot, slot + CLAIM_LEASE)
    assert not await store.claim_slot(slot, slot + CLAIM_LEASE)


async def test_released_slot_is_to_do_again(store: SqlStore) -> None:
    """A slot given back is claimed at once; a finished one cannot be given back."""
    await store.claim_slot(MONDAY, MONDAY)
    slot = MONDAY + WEEK
    assert await store.claim_slot(slot, slot)
    await store.release_slot(slot)
    assert await store.claim_slot(slot, slot)
    await store.add_check(Check(checked_at=slot, slot=slot), everywhere=False)
    await store.release_slot(slot)
    assert not await store.claim_slot(slot, slot)


async def test_ten_claims_at_once_are_one(open_store: Open) -> None:
    """Of ten replicas that claim a slot at the same moment one gets it, also when it is taken over."""
    stores = [await open_store() for _ in range(3)]
    await stores[0].claim_slot(MONDAY, MONDAY)
    for now in (MONDAY + WEEK, MONDAY + WEEK + CLAIM_LEASE):
        claims = [stores[number % 3].claim_slot(MONDAY + WEEK, now) for number in range(10)]
        assert sum(await asyncio.gather(*claims)) == 1


# Cards


async def test_card_is_owed_until_it_was_delivered(store: SqlStore) -> None:
    """A card is due when its subject is newer than what the conversation has, and only then."""
    await keep(store, place("channel"))
    rebuild = await add(store, question(), Subject.REBUILD)
    (card,) = await store.due_cards(MONDAY)
    assert (card.subject, card.subject_id, card.revision, card.activity_id) == (Subject.REBUILD, rebuild.id, 1, None)
    assert card.conversation == place("channel")
    await store.card_delivered(card, "activity-1", "looks")
    assert await store.due_cards(MONDAY) == []
    assert await store.card_of(rebuild.id, "channel") == "activity-1"
    assert await store.card_of(rebuild.id, "elsewhere") is None

    for state in (State.APPROVED, State.QUEUED, State.RUNNING):
        rebuild = await store.save_rebuild(rebuild.move(state, MONDAY), None, (Subject.REBUILD,))
    (card,) = await store.due_cards(MONDAY)
    assert (card.revision, card.activity_id, card.fingerprint) == (4, "activity-1", "looks")
    rebuild = await store.save_rebuild(rebuild.move(State.FAILED, MONDAY))
    await store.card_delivered(card, "activity-1", "looks")
    (card,) = await store.due_cards(MONDAY)
    assert card.revision == 5


async def test_cards_go_to_who_wants_them(store: SqlStore) -> None:
    """To all subscribed to the image and to where it was asked for, once each, the card before the notice."""
    for conversation in (
        place("all"),
        place("its own", SDK),
        place("another", ASPNET),
        place("nobody", subscribed=False),
        place("asked here", subscribed=False),
        place("gone"),
    ):
        await keep(store, conversation)
    await store.mark_gone("gone", MONDAY)
    rebuild = await add(store, question(conversation_id="asked here"), Subject.NOTICE, Subject.REBUILD)
    due = await store.due_cards(MONDAY)
    assert sorted(wanted(due)) == sorted(
        (name, subject) for name in ("all", "its own", "asked here") for subject in (Subject.REBUILD, Subject.NOTICE)
    )
    for name in ("all", "its own", "asked here"):
        assert [card.subject for card in due if card.conversation.id == name] == [Subject.REBUILD, Subject.NOTICE]
    await store.show(rebuild, "nobody")
    await store.show(rebuild, "nobody")
    assert ("nobody", Subject.REBUILD) in wanted(await store.due_cards(MONDAY))
    assert len(await store.due_cards(MONDAY)) == 7


async def test_notice_is_delivered_once(store: SqlStore) -> None:
    """A notice never changes: once delivered it is not due again, whatever the rebuild does."""
    await keep(store, place("channel"))
    rebuild = await add(store, question(), Subject.NOTICE)
    (card,) = await store.due_cards(MONDAY)
    await store.card_delivered(card, "activity-1", "")
    await store.save_rebuild(rebuild.move(State.EXPIRED, MONDAY), None, (Subject.NOTICE,))
    assert await store.due_cards(MONDAY) == []


async def test_card_of_a_check(store: SqlStore) -> None:
    """It goes to all subscribed to one of its images, or to where it was asked for, and follows its rebuilds."""
    for conversation in (place("all"), place("its own", SDK), place("another", ASPNET), place("x", subscribed=False)):
        await keep(store, conversation)
    rebuild = await add(store, question())
    found = (verdict(SDK, rebuild_id=rebuild.id),)
    check = await store.add_check(Check(checked_at=MONDAY, verdicts=found), everywhere=True)
    due = await store.due_cards(MONDAY)
    assert [(card.conversation.id, card.subject_id) for card in due] == [
        ("all", str(check.id)),
        ("its own", str(check.id)),
    ]
    for card in due:
        await store.card_delivered(card, "activity", "")
    await store.add_check(Check(checked_at=MONDAY, verdicts=found, conversation_id="x"), everywhere=False)
    (asked,) = await store.due_cards(MONDAY)
    assert asked.conversation.id == "x"
    await store.card_delivered(asked, "activity", "")
    await store.save_rebuild(rebuild.move(State.APPROVED, MONDAY))
    assert sorted(card.conversation.id for card in await store.due_cards(MONDAY)) == ["all", "its own", "x"]


async def test_failed_check_is_told_to_all(store: SqlStore) -> None:
    """A check without any image concerns everybody who is subscribed to anything."""
    for conversation in (place("all"), place("another", ASPNET), place("x", subscribed=False)):
        await keep(store, conversation)
    await store.add_check(Check(checked_at=MONDAY, problem="broken"), everywhere=True)
    assert [card.conversation.id for card in await store.due_cards(MONDAY)] == ["all", "another"]


async def test_refused_card_comes_again_later(store: SqlStore) -> None:
    """A card on a pause is due when the pause is over; a lost one is posted anew; success ends the counting."""
    await keep(store, place("channel"))
    rebuild = await add(store, question(), Subject.REBUILD)
    (card,) = await store.due_cards(MONDAY)
    assert await store.next_card_at() is None
    await store.card_failed(card, MONDAY + HOUR)
    assert await store.due_cards(MONDAY + HOUR - timedelta(seconds=1)) == []
    assert await store.next_card_at() == MONDAY + HOUR
    (card,) = await store.due_cards(MONDAY + HOUR)
    assert card.attempts == 1
    await store.card_delivered(card, "activity-1", "looks")
    assert await store.next_card_at() is None

    await store.save_rebuild(rebuild.move(State.APPROVED, MONDAY))
    (card,) = await store.due_cards(MONDAY)
    assert (card.attempts, card.activity_id) == (0, "activity-1")
    await store.card_failed(card, MONDAY, lost=True)
    (card,) = await store.due_cards(MONDAY)
    assert (card.activity_id, card.fingerprint, card.attempts) == (None, "", 1)


async def test_conversation_that_is_gone_and_comes_back(store: SqlStore) -> None:
    """Nothing is due for a conversation that is gone; when it says something again, what was missed is due."""
    await keep(store, place("channel"))
    await add(store, question(), Subject.REBUILD)
    await store.mark_gone("channel", MONDAY)
    assert await store.due_cards(MONDAY) == []
    assert await store.reach() == (0, 1)
    await keep(store, place("channel", SDK))
    assert wanted(await store.due_cards(MONDAY)) == [("channel", Subject.REBUILD)]
    assert await store.reach() == (1, 0)
    assert await store.conversation("unknown") is None


async def test_announcement_goes_to_who_is_told(store: SqlStore) -> None:
    """Of an image to those who are told about it, of anything else to all; one of a loss once, and not to the lost."""
    for conversation in (place("all"), place("its own", SDK), place("another", ASPNET), place("x", subscribed=False)):
        await keep(store, conversation)
    await store.announce(Announcement(at=MONDAY, text="a tag was deleted", image=SDK))
    assert [card.conversation.id for card in await store.due_cards(MONDAY)] == ["all", "its own"]
    for card in await store.due_cards(MONDAY):
        await store.card_delivered(card, "activity", "")
    lost = Announcement(at=MONDAY, text="all is lost")
    assert await store.mark_gone("all", MONDAY, lost)
    assert not await store.mark_gone("all", MONDAY, lost)
    due = await store.due_cards(MONDAY)
    assert [card.conversation.id for card in due] == ["another", "its own"]
    assert await store.announcement(int(due[0].subject_id)) == replace(lost, id=int(due[0].subject_id))
    assert await store.announcement(99) is None
    assert await store.reach() == (2, 1)


async def test_history_goes_on_before_a_rebuild(store: SqlStore) -> None:
    """Newest first, from a place or after some; those of one moment in an order that stays."""
    made = []
    for number, image in enumerate((SDK, ASPNET, SDK, ASPNET)):
        rebuild = question(image, id=f"id{number}", created_at=MONDAY + number // 2 * HOUR)
        made.append(await add(store, rebuild.move(State.EXPIRED, MONDAY)))
    assert [rebuild.id for rebuild in await store.history(None, 3)] == ["id3", "id2", "id1"]
    assert [rebuild.id for rebuild in await store.history(None, 3, before=made[2])] == ["id1", "id0"]
    assert [rebuild.id for rebuild in await store.history(SDK, 3, before=made[2])] == ["id0"]
    assert [rebuild.id for rebuild in await store.history(None, 2, skip=2)] == ["id1", "id0"]


async def test_audit_of_a_time(store: SqlStore) -> None:
    """From one moment to before another, of one image or of all, oldest first."""
    for number in range(4):
        at = MONDAY + number * HOUR
        await store.audit(AuditEntry(at=at, actor=None, action=str(number), image=(SDK, ASPNET)[number % 2]))
    assert [row["action"] async for row in store.audit_between(MONDAY + HOUR, MONDAY + 3 * HOUR)] == ["1", "2"]
    assert [row["action"] async for row in store.audit_between(image=ASPNET)] == ["1", "3"]
    assert [row["at"] async for row in store.audit_between(MONDAY + 3 * HOUR)] == [MONDAY + 3 * HOUR]


# The database itself


async def test_migrations_make_the_tables(store: SqlStore, url: str) -> None:
    """A migrated database has exactly the tables, columns and indexes that the program works with."""
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        differences = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
        )
    await engine.dispose()
    assert differences == []


async def test_replicas_that_start_together(open_store: Open) -> None:
    """Five that open an empty database at the same moment all come up: one migrates, the others wait."""
    async with asyncio.timeout(20):
        stores = await asyncio.gather(*(open_store() for _ in range(5)))
        await asyncio.gather(*(store.ping() for store in stores))


async def test_ping(store: SqlStore) -> None:
    """A database that is there answers."""
    await store.ping()


async def test_database_of_a_newer_version(tmp_path: Path) -> None:
    """A database that a later version of the program migrated is not touched, and the reason is told."""
    path = tmp_path / "store.db"
    async with SqlStore(f"sqlite+aiosqlite:///{path}"):
        pass
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(ConfigError, match=r"^SHIPSHAPE_DATABASE_URL: the database cannot be opened: .*9999"):
        async with SqlStore(f"sqlite+aiosqlite:///{path}"):
            pass


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nonsense", "is not a URL such as sqlite+aiosqlite:///shipshape.db, with a driver for asyncio"),
        ("sqlite:///x.db", "is not a URL such as sqlite+aiosqlite:///shipshape.db, with a driver for asyncio"),
        ("foo+bar://u:hunter2@h/x", "is not a URL such as"),
        ("postgresql+asyncpg://u:hunter2@h:port/x", "is not a URL such as"),
        ("mysql+aiomysql://u:hunter2@h/x", "needs the package aiomysql, which is not installed"),
        ("sqlite+aiosqlite:////no/such/folder/x.db", "the database cannot be opened: unable to open database file"),
        ("postgresql+asyncpg://u:hunter2@127.0.0.1:9/x", "the database cannot be opened: "),
    ],
)
async def test_database_that_cannot_be_used(url: str, told: str) -> None:
    """A URL that is wrong, and a database that is not there, are one sentence without the password."""
    with pytest.raises(ConfigError) as refused:
        async with SqlStore(url):
            pass
    (problem,) = refused.value.problems
    assert problem.startswith(f"SHIPSHAPE_DATABASE_URL: {told}")
    assert "hunter2" not in problem


async def test_account_that_postgresql_refuses(server: postgresql.PostgreSql) -> None:
    """What PostgreSQL says about a wrong database name is told."""
    with pytest.raises(ConfigError, match='cannot be opened: database "missing" does not exist'):
        async with SqlStore(server.url.replace("/postgres?", "/missing?")):
            pass


async def test_file_is_safe_against_a_crash(tmp_path: Path) -> None:
    """SQLite keeps a log ahead, so that a process that dies in the middle of a write leaves the last whole state."""
    path = tmp_path / "store.db"
    async with SqlStore(f"sqlite+aiosqlite:///{path}") as store:
        await add(store, question())
        with closing(sqlite3.connect(path)) as reader:
            assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert reader.execute("SELECT count(*) FROM rebuilds").fetchone() == (1,)


async def test_a_hold_of_an_earlier_version_is_lifted(open_store: Open, url: str) -> None:
    """Its row lacks fields that came later; it is the same hold all the same, and another one is not."""
    store = await open_store()
    hold = Hold(image=SDK, kind=HoldKind.HOLD, by=ALEX, at=MONDAY, reason="waits")
    row = AuditEntry(at=MONDAY, actor=ALEX, action="hold", image=SDK)
    await store.set_hold(hold, row)
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        body = (await connection.exec_driver_sql("SELECT body FROM holds")).scalar_one()
        assert b',"rollback":""' in body
        changed = body.replace(b',"rollback":""', b"")
        await connection.execute(update(holds).values(body=changed))
    await engine.dispose()
    assert not await store.lift_hold(replace(hold, reason="another"), row)
    assert await store.lift_hold(hold, row)
    assert await store.holds() == {}


async def test_changes_of_a_conversation_at_once_all_count(open_store: Open) -> None:
    """Whoever writes first, on two replicas: none of ten wishes is lost, also not that of who adds the conversation."""
    stores = [await open_store(), await open_store()]

    def wish(image: str) -> Callable[[Conversation | None], Conversation]:
        return lambda known: (known or place("channel", subscribed=False)).subscribe([image], failures_only=False)

    names = [f"image-{number}" for number in range(10)]
    await asyncio.gather(
        *(stores[number % 2].change_conversation("channel", wish(name)) for number, name in enumerate(names))
    )
    told = await stores[0].conversation("channel")
    assert told is not None
    assert set(told.images) == set(names)
