"""`history`: page by page, by button and by typing."""

from datetime import timedelta

import pytest

from bot.core.rebuilds import AuditEntry, Cause, Rebuild, State
from tests.conftest import MONDAY, Bot
from tests.peers.teams import ALEX, Json, texts

SDK, ASPNET = "dotnet-sdk-6", "dotnet-aspnet-6"


async def was(bot: Bot, number: int, image: str = SDK) -> None:
    """A rebuild of the past; its number is its reason."""
    at = MONDAY + timedelta(hours=number)
    rebuild = Rebuild(
        id=f"{image[7]}{image[-1]}{number:06}",
        image=image,
        state=State.CANCELLED,
        cause=Cause.BASE_MOVED,
        base="mcr.microsoft.com/dotnet/sdk:6.0",
        ended_reason=f"number {number}.",
        created_at=at,
        ended_at=at,
    )
    await bot.app.store.add_rebuild(rebuild, AuditEntry(at=at, actor=None, action="ask"))


def numbers(card: Json | None) -> list[int]:
    told = "\n".join(texts(card))
    return [int(part.partition(".")[0]) for part in told.split("Number ")[1:]]


async def test_rebuilds_of_one_moment_are_told_once_each(bot: Bot) -> None:
    """Those of one check begin at the same time; no page forgets or repeats one."""
    for number in range(10):
        await was(bot, number)
        await was(bot, number, ASPNET)
        await was(bot, number, "dotnet-aspnet-8")
    place = bot.teams.personal(ALEX)
    card = await place.ask("history")
    found = numbers(card.card)
    while "Older" in card.buttons:
        card.activity["attachments"][0]["content"] = (await place.press(card, "Older"))["value"]
        found += numbers(card.card)
    assert found == sorted([*range(10)] * 3, reverse=True)


async def test_older_keeps_its_place(bot: Bot) -> None:
    """Each press goes on after the last row, although newer rebuilds came between, until there are none."""
    place = bot.teams.personal(ALEX)
    for number in range(25):
        await was(bot, number)
    card = await place.ask(f"history {SDK}")
    found = [numbers(card.card)]
    for more in range(2):
        await was(bot, 25 + more)
        pressed = await place.press(card, "Older")
        card.activity["attachments"][0]["content"] = pressed["value"]
        found.append(numbers(card.card))
    assert found == [list(range(24, 14, -1)), list(range(14, 4, -1)), list(range(4, -1, -1))]
    assert card.buttons == ["Newest", "Status"]
    newest = await place.press(card, "Newest")
    assert numbers(newest["value"]) == list(range(26, 16, -1))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param(f"history {SDK}", list(range(11, 1, -1)), id="newest"),
        pytest.param(f"history {SDK} 1", list(range(11, 1, -1)), id="first page"),
        pytest.param(f"history {SDK} 2", [1, 0], id="second page"),
        pytest.param("history 2", [2, 1, 0], id="of all"),
        pytest.param(f"history {SDK} 3", [], id="beyond the last"),
        pytest.param(f"history {SDK} 99999999999999999999", [], id="far beyond the last"),
    ],
)
async def test_pages_are_typed_by_number(bot: Bot, text: str, found: list[int]) -> None:
    """Pages of ten, counted from one."""
    for number in range(12):
        await was(bot, number)
    await was(bot, 12, ASPNET)
    answer = await bot.teams.channel().ask(text)
    assert numbers(answer.card) == found
    assert ("no older rebuilds" in answer.visible) is (found == [])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("history 0", "Pages count from 1", id="page 0"),
        pytest.param(f"history {SDK} two", "There is no image two", id="not a number"),
        pytest.param("history dotnet-skd-6 2", "Did you mean dotnet-sdk-6", id="a typo"),
        pytest.param("history", "never rebuilt", id="nothing yet"),
    ],
)
async def test_mistakes_are_answered(bot: Bot, text: str, told: str) -> None:
    """With what is wrong, or what was probably meant."""
    assert told in (await bot.teams.channel().ask(text)).visible


async def test_a_place_that_is_not_there_is_told(bot: Bot) -> None:
    """A made-up button is answered in a sentence."""
    answer = await bot.teams.personal(ALEX).invoke("history", {"target": SDK, "before": "zzzzzzzz"})
    assert "There is no rebuild zzzzzzzz" in answer["value"]


async def test_a_real_rebuild_is_told_whole(bot: Bot) -> None:
    """Outcome, who asked and approved, digests, durations and the run."""
    old = bot.world.base_digest(bot.world.catalog[SDK])
    new = bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    bot.clock.advance(timedelta(hours=2))
    await bot.teams.channel().press(summary, "Approve")
    await bot.teams.until_shown(f"{SDK} · in ECR as")
    told = (await bot.teams.channel().ask(f"history {SDK}")).visible
    assert "✓\u00a0in ECR as 6.0-bullseye-slim-1.4.0" in told
    assert "asked by a check · approved by Alex Wilber · ran " in told
    assert " · 2 h 00 m from the question · run " in told
    assert f"{old.short}\u00a0→\u00a0{new.short}" in told
