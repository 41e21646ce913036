"""What the scans of ECR say of an update: on its card, when they have finished, and never in its way."""

import json
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.core.rebuilds import State
from bot.demo.ecr import LocalScan
from bot.demo.world import LocalWorld
from tests.conftest import CATALOG, Bot, StartBot
from tests.peers.teams import Message

SDK = "dotnet-sdk-6"
OLD = "6.0-bullseye-slim-1.3.0"
NEW = "6.0-bullseye-slim-1.4.0"
PAGE = "https://security-tracker.debian.org/tracker/"
PENDING = LocalScan(status="IN_PROGRESS")


def scan(**severities: str) -> LocalScan:
    """Findings by what their names end with: `scan(a="HIGH")` is CVE-2026-a."""
    findings = [
        {"name": f"CVE-2026-{name}", "severity": severity, "uri": f"{PAGE}CVE-2026-{name}"}
        for name, severity in severities.items()
    ]
    return LocalScan(findings=tuple(findings))


async def update(bot: Bot) -> Message:
    """Let the base move, approve, and return the card of the result."""
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    await bot.teams.channel().press(summary, "Approve")
    return await bot.teams.until_shown(f"{SDK} · in ECR as {NEW}")


async def test_the_card_tells_what_an_update_fixes(bot: Bot) -> None:
    """By severity, and by name with links behind Why?."""
    bot.world.ecr.scans[OLD] = scan(a="CRITICAL", b="HIGH", c="HIGH", d="LOW")
    bot.world.ecr.scans[NEW] = scan(d="LOW", e="MEDIUM")
    await update(bot)
    card = await bot.teams.until_shown("fixes 1 critical, 2 high · new: 1 medium · 1 remains")
    assert f"{PAGE}CVE-2026-a" in json.dumps(card.card)
    assert "New: CVE-2026-e medium." in card.text


async def test_a_scan_that_has_not_finished_follows(bot: Bot) -> None:
    """The result is told at once; the same card is edited when the scan is done."""
    bot.world.ecr.scans[OLD] = scan(a="CRITICAL")
    bot.world.ecr.scans[NEW] = PENDING
    await update(bot)
    waiting = await bot.teams.until_shown("the scan has not finished yet")
    bot.world.ecr.scans[NEW] = scan()
    bot.clock.advance(timedelta(seconds=31))
    edited = await bot.teams.until_shown("fixes 1 critical")
    assert edited.id == waiting.id


async def test_a_scan_that_never_finishes_is_given_up(bot: Bot) -> None:
    """After an hour the card says so, and ECR is not asked any more."""
    bot.world.ecr.scans[NEW] = PENDING
    await update(bot)
    await bot.teams.until_shown("the scan has not finished yet")
    bot.clock.advance(timedelta(hours=1))
    await bot.teams.until_shown("the scan did not finish within an hour")
    asked = bot.world.ecr.calls.count("DescribeImageScanFindings")
    bot.clock.advance(timedelta(hours=1))
    await bot.app.runner.advance()
    assert bot.world.ecr.calls.count("DescribeImageScanFindings") == asked


@pytest.fixture
async def guarded(start_bot: StartBot, catalog_file: Path) -> AsyncIterator[Bot]:
    """A bot that holds back what brings something new and high, installed in a channel."""
    catalog_file.write_text(CATALOG.replace("images:\n", "  hold_back: high\nimages:\n"))
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        yield bot


def told(bot: Bot) -> list[str]:
    """Every plain message about the version."""
    return [message.text for message in bot.teams.messages if message.card is None and NEW in message.text]


async def test_an_update_with_something_bad_is_held_back(guarded: Bot) -> None:
    """Its people are warned instead of told to use it, as are those who want failures only; the audit says why."""
    guarded.world.ecr.scans[NEW] = scan(a="CRITICAL", b="HIGH", c="LOW")
    quiet = guarded.teams.channel("alerts")
    await quiet.ask("subscribe failures")
    await update(guarded)
    card = await guarded.teams.until_shown(f"in ECR as {NEW}, with new vulnerabilities", where=quiet)
    assert "To go back, type: rollback dotnet-sdk-6" in card.visible
    await guarded.teams.until(lambda: len(told(guarded)) == 2, "a warning in both channels")
    assert all("New: 1 critical, 1 high. Look at what is new before you use" in text for text in told(guarded))
    (entry,) = [row for row in await guarded.app.store.audit_rows() if row["action"] == State.SUCCEEDED]
    assert entry["comment"] == "held back: it brings new vulnerabilities (1 critical, 1 high)"


async def test_what_is_new_but_not_bad_enough_is_announced(guarded: Bot) -> None:
    """As is everything when the catalog does not ask for more."""
    guarded.world.ecr.scans[NEW] = scan(a="MEDIUM")
    await update(guarded)
    await guarded.teams.until(lambda: told(guarded), "the notice")
    assert [text.split("<")[0].strip() for text in told(guarded)] == [f"{SDK}: in ECR as {NEW}."]


async def test_nobody_is_told_before_the_scan_is_there(guarded: Bot) -> None:
    """The card is there at once and says so; the notice comes when the scan has finished, as what it is then."""
    guarded.world.ecr.scans[NEW] = PENDING
    await update(guarded)
    await guarded.teams.until_shown("the scan has not finished yet")
    assert told(guarded) == []
    guarded.world.ecr.scans[NEW] = scan(a="HIGH")
    guarded.clock.advance(timedelta(seconds=31))
    await guarded.teams.until(lambda: told(guarded), "the warning")
    assert ["New: 1 high." in text for text in told(guarded)] == [True]
    assert (await guarded.app.store.audit_rows())[-1]["action"] == "hold back"


async def test_without_a_scan_the_word_says_that_nothing_was_compared(guarded: Bot) -> None:
    """After the time to wait is over."""
    guarded.world.ecr.scans[NEW] = PENDING
    await update(guarded)
    await guarded.teams.until_shown("the scan has not finished yet")
    guarded.clock.advance(timedelta(hours=1))
    await guarded.teams.until(lambda: told(guarded), "the notice")
    assert ["were not compared: the scan did not finish within an hour" in text for text in told(guarded)] == [True]


async def test_a_restart_forgets_no_scan(start_bot: StartBot, world: LocalWorld) -> None:
    """What one process waits for, the next one sees through."""
    world.ecr.scans[OLD], world.ecr.scans[NEW] = scan(a="HIGH"), PENDING
    async with start_bot() as bot:
        await bot.check()
        await bot.teams.channel().install()
        await update(bot)
        await bot.teams.until_shown("the scan has not finished yet")
    world.ecr.scans[NEW] = scan()
    async with start_bot() as bot:
        await bot.teams.until_shown("fixes 1 high")


async def test_an_event_has_the_scan_read_at_once(start_bot: StartBot, world: LocalWorld) -> None:
    """No clock goes on: ECR says that the scan finished, and the card follows."""
    queue_url = world.ecr.open_queue()
    world.ecr.scans[OLD], world.ecr.scans[NEW] = scan(a="HIGH"), PENDING
    async with start_bot(ECR_EVENTS_QUEUE_URL=queue_url) as bot:
        await bot.check()
        await bot.teams.channel().install()
        await update(bot)
        await bot.teams.until_shown("the scan has not finished yet")
        world.ecr.scans[NEW] = scan()
        (done,) = await bot.app.store.rebuilds(states={State.SUCCEEDED})
        world.ecr.send(queue_url, json.dumps(finished(str(done.pushed_digest))))
        await bot.teams.until_shown("fixes 1 high")


def finished(digest: str) -> dict[str, Any]:
    detail = {"scan-status": "COMPLETE", "repository-name": "dotnet/sdk", "image-digest": digest, "image-tags": []}
    return {
        "id": str(uuid.uuid4()),
        "detail-type": "ECR Image Scan",
        "source": "aws.ecr",
        "account": "123456789012",
        "region": "eu-west-1",
        "detail": detail,
    }


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("AccessDeniedException", "refused DescribeImageScanFindings of dotnet/sdk"),
        ("ImageNotFoundException", "has no such image in dotnet/sdk"),
    ],
)
async def test_without_the_right_to_read_scans_all_else_works(bot: Bot, code: str, told: str) -> None:
    """The rebuild succeeds, and its card says why nothing was compared."""
    bot.world.ecr.fail_next("DescribeImageScanFindings", code, times=9)
    await update(bot)
    await bot.teams.until_shown("Vulnerabilities were not compared", told)


async def test_an_ecr_that_is_down_is_asked_again(bot: Bot) -> None:
    """An overload is no answer: the next look half a minute later gets one."""
    bot.world.ecr.scans[OLD], bot.world.ecr.scans[NEW] = scan(a="HIGH"), scan()
    bot.world.ecr.fail_next("DescribeImageScanFindings", "ThrottlingException", times=9)
    await update(bot)
    await bot.teams.until_shown("the scan has not finished yet")
    bot.world.ecr.work_again()
    bot.clock.advance(timedelta(seconds=31))
    await bot.teams.until_shown("fixes 1 high")


async def test_a_scan_that_cannot_be_had_is_told(bot: Bot) -> None:
    """Of the image before as of the new one."""
    bot.world.ecr.scans[OLD] = LocalScan(status="SCAN_ELIGIBILITY_EXPIRED")
    await update(bot)
    await bot.teams.until_shown("the image before it: its time to be scanned is over")
