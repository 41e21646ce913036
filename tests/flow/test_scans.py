"""What the scans of ECR say of an update: on its card, when they have finished, and never in its way."""

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest

from bot.core.rebuilds import State
from bot.demo.ecr import LocalScan
from bot.demo.world import LocalWorld
from tests.conftest import Bot, StartBot
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
