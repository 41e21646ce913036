"""Images that are based on other platform images: asked for with their parent, built after it, skipped without it."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bot.core.images import Digest
from bot.core.rebuilds import State
from bot.demo.release_metadata import CHANNELS
from bot.demo.world import LocalWorld
from tests.conftest import CATALOG, Bot, StartBot
from tests.peers.teams import ALEX, MEGAN, NESTOR, Message

SDK, PARENT, CHILD, OTHER, GRANDCHILD = "dotnet-sdk-6", "dotnet-aspnet-8", "orders-base", "web-base", "orders-web"
ORDER = f"""\
{CATALOG}\
  {GRANDCHILD}:
    base: platform:{CHILD}
    repository: contoso/orders-web
    tag: "1"
  {CHILD}:
    base: platform:{PARENT}
    repository: contoso/orders
    tag: "1"
"""
TWO = f"""\
{ORDER}\
  {OTHER}:
    base: platform:{PARENT}
    repository: contoso/web
    tag: "1"
"""


@pytest.fixture
def catalog_file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """One chain of three images; tests may name another catalog."""
    path = tmp_path / "catalog.yml"
    path.write_text(getattr(request, "param", ORDER))
    return path


def newest(bot: Bot, name: str) -> Digest:
    """What the newest version of an image is in ECR."""
    image = bot.world.catalog[name]
    return bot.world.registry.storage.tags(f"{image.registry_id}/{image.repository}")[image.tag]


def pinned(bot: Bot, name: str) -> str:
    return next(run["base"] for run in bot.runs if run["image"] == name)


async def parent_is_approved(bot: Bot) -> Message:
    """The parent's base moved, and Alex approved; its card."""
    bot.move_base(PARENT)
    await bot.next_week()
    summary = await bot.teams.until_shown(PARENT, "waits for approval")
    await bot.teams.channel().press(summary, "Approve")
    return await bot.teams.until_shown(f"{PARENT} · ", "Based on it")


async def test_children_are_offered_with_their_parent_and_built_after_it(bot: Bot) -> None:
    """Approving a parent asks for its child on the same card; the child is built on what the parent pushed."""
    bot.script.gate.clear()
    card = await parent_is_approved(bot)
    assert f"{CHILD}\xa0 waits for approval" in card.visible
    assert GRANDCHILD not in card.text
    posted = len(bot.teams.messages)
    await bot.teams.channel().press(card, "Approve", MEGAN)
    child = await bot.teams.until_shown(f"{CHILD} · waits for {PARENT}")
    assert "Cannot be queued" not in child.visible
    await bot.teams.until(lambda: GRANDCHILD in child.visible, "the grandchild is offered on it")
    await bot.app.runner.advance()
    assert [run["image"] for run in bot.runs] == [PARENT]
    bot.script.gate.set()
    await bot.teams.until_shown(f"{CHILD} · in ECR as 1-1.4.0")
    assert [run["image"] for run in bot.runs] == [PARENT, CHILD]
    assert pinned(bot, CHILD) == f"{bot.world.catalog[PARENT].registry}/dotnet/aspnet@{newest(bot, PARENT)}"
    await bot.teams.until(lambda: f"{CHILD}\xa0 in ECR as" in card.visible, "the parent's card follows the child")
    assert len([m for m in bot.teams.messages[posted:] if m.card]) == 1, "the child has one card of its own"
    rows = [row for row in await bot.app.store.audit_rows() if row["image"] == CHILD]
    assert [row["action"] for row in rows][:4] == ["ask", "approve", "go on", "queue"]


async def test_a_chain_is_built_in_order(bot: Bot) -> None:
    """A grandchild is offered when its parent is approved, and each is built on what the one before it pushed."""
    bot.script.gate.clear()
    card = await parent_is_approved(bot)
    await bot.teams.channel().press(card, "Approve")
    child = await bot.teams.until_shown(f"{CHILD} · waits for {PARENT}", GRANDCHILD)
    await bot.teams.channel().press(child, "Approve")
    await bot.teams.until_shown(f"{GRANDCHILD} · waits for {CHILD}")
    bot.script.gate.set()
    await bot.teams.until_shown(f"{GRANDCHILD} · in ECR as 1-1.4.0")
    assert [run["image"] for run in bot.runs] == [PARENT, CHILD, GRANDCHILD]
    assert pinned(bot, GRANDCHILD).endswith(f"@{newest(bot, CHILD)}")
    await bot.next_week()
    await bot.teams.until_shown("all 5 images are fresh")


async def test_a_failed_parent_skips_all_below_it_with_the_reason(bot: Bot) -> None:
    """Children and grandchildren, approved or waiting, end with the stage that failed; who approved is told."""
    bot.script.gate.clear()
    bot.script.failing[PARENT] = ("Test", ["expected 200, got 500"])
    card = await parent_is_approved(bot)
    await bot.teams.channel().press(card, "Approve", MEGAN)
    child = await bot.teams.until_shown(f"{CHILD} · waits for {PARENT}", GRANDCHILD)
    bot.script.gate.set()
    reason = f"skipped: {PARENT} failed: stage Test failed"
    await bot.teams.until(lambda: reason[1:] in child.visible.splitlines()[2], "the child says why")
    await bot.teams.until(lambda: f"cancelled · {reason}" in child.visible, "and so does the grandchild's row")
    await bot.teams.until(lambda: f"cancelled · {reason}" in card.visible, "and the child's on the parent's card")
    await bot.teams.until_shown(f"{CHILD}: cancelled", "<at>Megan Bowen</at>")
    assert [run["image"] for run in bot.runs] == [PARENT]
    assert "Approve" not in card.buttons


@pytest.mark.parametrize("catalog_file", [TWO], indirect=True)
async def test_children_are_decided_together_or_one_by_one(bot: Bot) -> None:
    """With several children one press approves all that wait; each can be decided alone; each gets one run."""
    card = await parent_is_approved(bot)
    together = {"Approve 2 children", "Reject all…", "One by one"}
    await bot.teams.until(lambda: together <= set(card.buttons), "both are offered")
    channel = bot.teams.channel()
    answer = await channel.press(card, "Approve 2 children", NESTOR)
    assert answer["value"].startswith("0 of 2 approved")
    assert answer["value"].count("You may not approve") == 2
    await channel.invoke("reject", {"target": (await _waiting(bot, OTHER)), "reason": "not this one"}, MEGAN)
    await bot.teams.until(lambda: "not this one" in card.visible, "the row follows")
    await channel.press(card, "Approve")
    await bot.teams.until_shown(f"{CHILD} · in ECR as")
    assert [run["image"] for run in bot.runs] == [PARENT, CHILD]


async def _waiting(bot: Bot, name: str) -> str:
    rebuild = await bot.app.store.open_rebuild(name)
    assert rebuild
    return rebuild.id


async def test_a_rejected_child_is_not_asked_for_again(bot: Bot) -> None:
    """A rejection holds for what the parent then pushes, but not for what it pushes the next time."""
    bot.script.gate.clear()
    card = await parent_is_approved(bot)
    await bot.teams.channel().press(card, "Reject…", reason="frozen")
    bot.script.gate.set()
    await bot.teams.until_shown(f"{PARENT} · in ECR as")
    await bot.next_week()
    await bot.teams.until_shown("1 stale", "rejected")
    assert await bot.app.store.open_rebuild(CHILD) is None
    await parent_is_approved(bot)
    await bot.teams.until_shown(f"{PARENT} · ", f"{CHILD}\xa0 waits for approval")


@pytest.mark.parametrize("catalog_file", [ORDER.replace('    tag: "1"', '    tag: "1"\n    mode: auto')], indirect=True)
async def test_automatic_children_follow_by_themselves(bot: Bot) -> None:
    """A child of mode auto needs no approval, and its child neither."""
    await parent_is_approved(bot)
    await bot.teams.until_shown(f"{GRANDCHILD} · in ECR as 1-1.4.0")
    assert [run["image"] for run in bot.runs] == [PARENT, CHILD, GRANDCHILD]


@pytest.mark.parametrize(
    "catalog_file",
    [ORDER.replace("    repository: contoso/orders\n", "    repository: contoso/orders\n    mode: notify\n")],
    indirect=True,
)
async def test_a_child_that_is_only_told_about_is_not_offered(bot: Bot) -> None:
    """Mode notify is never asked for; that it is stale now is known as soon as its parent is pushed."""
    bot.move_base(PARENT)
    await bot.next_week()
    summary = await bot.teams.until_shown(PARENT, "waits for approval")
    await bot.teams.channel().press(summary, "Approve")
    card = await bot.teams.until_shown(f"{PARENT} · in ECR as")
    assert CHILD not in card.text
    status = await bot.teams.personal(ALEX).ask(f"status {CHILD}")
    assert "stale" in status.visible


async def test_a_check_that_finds_both_asks_for_both_parents_first(bot: Bot) -> None:
    """Both are on the summary in order; the child that is approved first waits for the parent's run all the same."""
    bot.world.publish(
        bot.world.catalog[PARENT], "8.0-bookworm-slim-1.3.1", bot.world.base_digest(bot.world.catalog[PARENT])
    )
    bot.move_base(PARENT)
    await bot.next_week()
    summary = await bot.teams.until_shown("2 stale", PARENT, CHILD)
    assert summary.visible.index(PARENT) < summary.visible.index(CHILD)
    bot.script.gate.clear()
    answer = await bot.teams.channel().press(summary, "Approve all 2")
    assert answer["value"].splitlines() == ["2 of 2 approved", f"✓ {PARENT}: approved", f"✓ {CHILD}: approved"]
    await bot.teams.until_shown(f"{CHILD} · waits for {PARENT}")
    bot.script.gate.set()
    await bot.teams.until_shown(f"{CHILD} · in ECR as")
    assert [run["image"] for run in bot.runs] == [PARENT, CHILD]
    assert pinned(bot, CHILD).endswith(f"@{newest(bot, PARENT)}")


async def test_a_child_goes_its_own_way_when_nobody_decides_about_the_parent(bot: Bot) -> None:
    """A child that is approved while its parent's rebuild only waits is built on the parent as it is."""
    before = newest(bot, PARENT)
    bot.move_base(PARENT)
    await bot.next_week()
    await bot.teams.until_shown(PARENT, "waits for approval")
    await bot.teams.personal(ALEX).say(f"rebuild {CHILD} new certificate")
    await bot.teams.until_shown(f"{CHILD} · in ECR as 1-1.3.1")
    assert pinned(bot, CHILD).endswith(f"@{before}")


async def test_a_restart_in_the_middle_asks_each_child_once(start_bot: StartBot) -> None:
    """Stopped while the parent is built and started again, the order goes on, with one request and run per image."""
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        bot.script.gate.clear()
        card = await parent_is_approved(bot)
        await bot.teams.channel().press(card, "Approve")
        await bot.teams.until_shown(f"{CHILD} · waits for {PARENT}")
    async with start_bot() as bot:
        bot.script.gate.set()
        await bot.teams.until_shown(f"{CHILD} · in ECR as")
        asked = [row for row in await bot.app.store.audit_rows() if row["action"] == "ask"]
    assert [run["image"] for run in bot.runs] == [PARENT, CHILD]
    assert [row["image"] for row in asked] == [PARENT, CHILD, GRANDCHILD]


async def test_two_replicas_offer_each_child_once(bot: Bot, start_bot: StartBot) -> None:
    """Two bots on one database have one request per child between them."""
    async with start_bot() as other:
        await parent_is_approved(bot)
        await asyncio.gather(*(each.app.runner.advance() for each in (bot, other, bot, other)))
        found = await bot.app.store.history(CHILD, 5)
    assert [rebuild.state for rebuild in found] == [State.AWAITING_APPROVAL]


async def test_a_cancelled_parent_skips_its_child(bot: Bot) -> None:
    """A child whose parent was cancelled before it was queued ends as well."""
    bot.world.azure.fail_next("POST", "/runs", 500, times=9)
    card = await parent_is_approved(bot)
    await bot.teams.channel().press(card, "Approve")
    child = await bot.teams.until_shown(f"{CHILD} · waits for {PARENT}")
    await bot.teams.channel().press(card, "Cancel…")
    await bot.teams.until(lambda: f"Skipped: {PARENT} was cancelled" in child.visible, "the child ends")
    assert bot.runs == []


async def test_a_child_follows_the_successor_of_its_parent(bot: Bot) -> None:
    """When the parent's base moves before its run is queued, the child waits for the new question's run."""
    bot.world.azure.fail_next("POST", "/runs", 500)
    card = await parent_is_approved(bot)
    await bot.teams.channel().press(card, "Approve")
    child = await bot.teams.until_shown(f"{CHILD} · waits for {PARENT}")
    bot.move_base(PARENT)
    bot.clock.advance(timedelta(minutes=5))
    await bot.app.runner.advance()
    again = await bot.teams.until_shown(f"{PARENT} · waits for approval")
    assert bot.runs == []
    await bot.teams.channel().press(again, "Approve")
    await bot.teams.until(lambda: "in ECR as" in child.visible, "the child is built after it")
    assert [run["image"] for run in bot.runs] == [PARENT, CHILD]
    await bot.teams.until(lambda: f"{CHILD}\xa0 in ECR" in again.visible, "and shown on its card")


async def test_a_held_child_is_not_offered(bot: Bot) -> None:
    """While a child is on hold its parent is built without it."""
    await bot.teams.personal(ALEX).ask(f"hold {CHILD} migration")
    bot.move_base(PARENT)
    await bot.next_week()
    summary = await bot.teams.until_shown(PARENT, "waits for approval")
    await bot.teams.channel().press(summary, "Approve")
    await bot.teams.until_shown(f"{PARENT} · in ECR as")
    assert await bot.app.store.history(CHILD, 1) == []


async def test_a_child_that_is_wanted_while_its_parent_runs_waits_for_it(bot: Bot) -> None:
    """Also a rebuild that somebody asks for by itself is built on what the parent pushes, not on what is old soon."""
    bot.script.gate.clear()
    card = await parent_is_approved(bot)
    await bot.teams.channel().press(card, "Reject…", reason="not with the others")
    await bot.teams.personal(ALEX).say(f"rebuild {CHILD} after all")
    await bot.teams.until_shown(f"{CHILD} · waits for {PARENT}")
    again = await bot.teams.personal(MEGAN).ask(f"approve {CHILD}")
    assert f"waits for {PARENT}" in again.visible
    bot.script.gate.set()
    await bot.teams.until_shown(f"{CHILD} · in ECR as")
    assert pinned(bot, CHILD).endswith(f"@{newest(bot, PARENT)}")


async def test_a_check_leaves_what_waits_for_its_parent(bot: Bot) -> None:
    """The child is still fresh while its parent is built, but its question stays."""
    bot.script.gate.clear()
    card = await parent_is_approved(bot)
    asked = await bot.app.store.open_rebuild(CHILD)
    await bot.teams.channel().ask("check")
    assert asked
    assert await bot.app.store.open_rebuild(CHILD) == asked
    assert "Approve" in card.buttons


async def test_a_skipped_child_is_asked_for_when_its_parent_comes_another_way(bot: Bot) -> None:
    """That it was skipped is no failure of its own: the next check on the same day asks."""
    bot.script.failing[PARENT] = ("Test", ["expected 200, got 500"])
    await parent_is_approved(bot)
    await bot.teams.until_shown(f"{PARENT} · test failed", f"skipped: {PARENT} failed")
    image = bot.world.catalog[PARENT]
    bot.world.publish(image, "8.0-bookworm-slim-1.4.0", bot.world.base_digest(image))
    soon = await bot.teams.personal(ALEX).ask("check")
    assert f"{CHILD}\xa0 waits for approval" in soon.visible


async def test_a_crash_while_children_are_offered(bot: Bot) -> None:
    """Stopped between asking for the child and noting it, the bot does not ask again for one that was rejected."""
    bot.world.azure.fail_next("POST", "/runs", 500, times=9)
    card = await parent_is_approved(bot)
    await bot.teams.channel().press(card, "Reject…", reason="frozen")
    await bot.teams.until_shown(f"{PARENT} · ", "Cannot be queued yet")
    parent = await bot.app.store.open_rebuild(PARENT)
    assert parent
    await bot.app.store.save_rebuild(replace(parent, offered=False))
    bot.clock.advance(timedelta(minutes=5))
    await bot.app.runner.advance()
    offered = await bot.app.store.open_rebuild(PARENT)
    assert offered
    assert offered.offered
    assert [rebuild.state for rebuild in await bot.app.store.history(CHILD, 5)] == [State.REJECTED]


async def test_a_parent_that_is_rolled_back_skips_its_child(bot: Bot) -> None:
    """A rollback takes the place of the parent's rebuild and pushes nothing, so there is nothing to build on."""
    image = bot.world.catalog[PARENT]
    bot.world.publish(image, "8.0-bookworm-slim-1.4.0", bot.world.base_digest(image))
    bot.script.gate.clear()
    by_hand = {"image": PARENT, "request_id": "by-hand", "version_tag": "8.0-bookworm-slim-1.3.5", "base": "mcr"}
    bot.world.azure.runs.queue(7, by_hand, branch="refs/heads/main", version="0" * 40)
    bot.move_base(PARENT)
    await bot.next_week()
    summary = await bot.teams.until_shown("2 stale", PARENT, CHILD)
    await bot.teams.channel().press(summary, "Approve all 2")
    child = await bot.teams.until_shown(f"{CHILD} · waits for {PARENT}")
    await bot.teams.channel().say(f"rollback {PARENT} 1.3.0 breaks our proxy")
    await bot.teams.until(lambda: f"kipped: {PARENT} was superseded: a rollback" in child.visible, "the child ends")
    assert [run["request_id"] for run in bot.runs] == ["by-hand"]


async def test_children_follow_their_parent_back(bot: Bot) -> None:
    """The parent's newest version was rolled back: its child is asked for at once, and built on the one in use."""
    image = bot.world.catalog[PARENT]
    before = newest(bot, PARENT)
    await parent_is_approved(bot)
    child = await bot.teams.until_shown(f"{PARENT} · in ECR as", f"{CHILD}\xa0 waits for approval")
    await bot.teams.channel().press(child, "Approve")
    await bot.teams.until_shown(f"{CHILD} · in ECR as")
    await bot.teams.channel().say(f"rollback {PARENT} 1.3.0 breaks our proxy")
    question = await bot.teams.until_shown("Check · ", f"{CHILD}\xa0 waits for approval")
    await bot.teams.channel().press(question, "Approve")
    await bot.teams.until(lambda: len(bot.runs) == 3, "the child's second run")
    assert bot.runs[-1]["base"] == f"{image.registry}/{image.repository}@{before}"


async def test_support_is_that_of_the_base_at_the_bottom(start_bot: StartBot, world: LocalWorld) -> None:
    """An image on images of ours is out of support with the .NET below them all."""
    world.releases.channels["8.0"] = replace(CHANNELS["8.0"], ends="2026-11-01")
    async with start_bot(RELEASE_METADATA_URL=world.releases.url) as bot:
        await bot.check()
        await bot.next_week()
        status = await bot.teams.personal(ALEX).ask(f"status {GRANDCHILD}")
        assert f"{GRANDCHILD} · fresh · out of support since 1 Nov 2026" in status.visible
