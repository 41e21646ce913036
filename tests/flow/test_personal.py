"""A personal chat can do everything, and no card anywhere tells a secret or a whole log."""

import json
from datetime import timedelta

import pytest

from bot.teams.commands.table import COMMANDS
from tests.conftest import Bot
from tests.peers.teams import ALEX, NESTOR, PASSWORD

SDK, ASPNET = "dotnet-sdk-6", "dotnet-aspnet-6"
VISIBLE = [command.name for command in COMMANDS.values() if not command.hidden]
PAT = "AZDO".join(["a1B2c3D4" * 9 + "e5F6", "g7H8"])
SECRETS = {
    "a personal access token": PAT,
    "an old personal access token": "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst",
    "a header": "c2hpcHNoYXBlOmh1bnRlcjI=",
    "a bearer token": "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
    "an AWS key": "AKIAIOSFODNN7EXAMPLE",
    "a password": "correct-horse-battery",
    "a password in a URL": "hunter2hunter2",
}
LOG = [
    *(f"line {number} of a long log" for number in range(500)),
    f"git: authentication with {SECRETS['a personal access token']} failed",
    f"fatal: {SECRETS['an old personal access token']} is not valid",
    f"Authorization: Basic {SECRETS['a header']}",
    f"> Authorization: Bearer {SECRETS['a bearer token']}",
    f"aws: {SECRETS['an AWS key']} may not",
    f"login --password {SECRETS['a password']}",
    f"https://builder:{SECRETS['a password in a URL']}@example.com/feed",
    "expected 200, got 500",
]


@pytest.mark.parametrize("name", VISIBLE)
async def test_every_command_is_answered_in_a_personal_chat(bot: Bot, name: str) -> None:
    """Alone and with an image: there is an answer, in that chat, and it is never that something went wrong."""
    place = bot.teams.personal(NESTOR)
    for text in (name, f"{name} {SDK}", f"{name} {SDK} 3d for a reason"):
        answer = await place.ask(text)
        assert answer.conversation == place.id
        assert answer.visible.strip()
        assert "went wrong" not in answer.visible
        assert "did not work" not in answer.visible


async def test_a_personal_chat_does_everything(bot: Bot) -> None:
    """From the question to ECR, with all that may come between, without any channel."""
    await bot.teams.channel().ask("unsubscribe")
    alex, nestor = bot.teams.personal(ALEX), bot.teams.personal(NESTOR)
    assert f"told about {SDK}, {ASPNET}" in (await alex.ask(f"subscribe {SDK} {ASPNET}")).visible
    bot.move_base(SDK)
    await bot.next_week()
    await bot.teams.until_shown(SDK, "waits for approval", where=alex)
    assert SDK in (await alex.ask("pending")).visible
    await alex.ask(f"snooze {SDK} 3d")
    await alex.ask(f"release {SDK}")
    await alex.ask(f"hold {SDK} breaks our proxy")
    assert "hold" in (await alex.ask(f"status {SDK}")).visible
    await alex.ask(f"release {SDK}")
    assert "Rejected" in (await alex.ask(f"reject {SDK} not this one")).visible

    bot.script.gate.clear()
    await alex.say(f"rebuild {SDK}")
    await bot.teams.until_shown(f"{SDK} · building", where=alex)
    told = (await alex.ask(f"cancel {SDK}")).visible
    assert "Asked Azure DevOps to cancel" in told or "Cancelled." in told  # Azure may be faster than its answer
    bot.script.gate.set()
    await bot.teams.until_shown(f"{SDK} · cancelled", where=alex)

    bot.clock.advance(timedelta(minutes=1))
    bot.script.failing[SDK] = ("Test", ["got 500"])
    await alex.say(f"rebuild {SDK}")
    await bot.teams.until_shown(f"{SDK} · test failed", where=alex)
    bot.script.failing.clear()
    assert "Retrying" in (await alex.ask(f"retry {SDK}")).visible
    await bot.teams.until_shown(f"{SDK} · in ECR as", where=alex)

    await nestor.say(f"rebuild {ASPNET} new certificate")
    await bot.teams.until_shown(f"{ASPNET} · waits for approval", where=nestor)
    assert "Approved" in (await alex.ask(f"approve {ASPNET}")).visible
    await bot.teams.until_shown("<at>Nestor Wilke</at>", "<at>Alex Wilber</at>", where=nestor)
    history = (await alex.ask("history")).visible
    assert "asked by Nestor Wilke · approved by Alex Wilber" in history
    assert [m for m in bot.teams.messages if m.conversation.startswith(bot.teams.channel().id)][1:] == []


async def test_no_card_tells_a_secret_or_a_whole_log(bot: Bot) -> None:
    """What a failing step printed is shown by its end, with whatever looks like a secret taken out."""
    bot.script.failing[SDK] = ("Test", LOG)
    place = bot.teams.personal(ALEX)
    await place.say(f"rebuild {SDK}")
    card = await bot.teams.until_shown(f"{SDK} · ", "expected 200, got 500", where=place)
    for text in (f"status {SDK}", f"history {SDK}", "list", f"rebuild {SDK}"):
        await place.ask(text)
    told = json.dumps([message.activity for message in bot.teams.messages], ensure_ascii=False)
    audit = json.dumps(await bot.app.store.audit_rows(), default=str)
    for what, secret in {**SECRETS, "the bot's password": PASSWORD}.items():
        assert secret not in told + audit, what
    assert "Bearer ey" not in told
    assert card.text.count("of a long log") <= 12
