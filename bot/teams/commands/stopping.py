"""Commands that stop images, and let them go again."""

from datetime import timedelta

from bot.core.holds import parse_pause
from bot.errors import CommandError
from bot.teams.cards.card import Card
from bot.teams.cards.hold import hold_card
from bot.teams.commands.asks import Ask, command, first, image_and_rest
from bot.teams.commands.looking import check_now


@command("snooze IMAGE 3d [reason]", "put off the question about the present base", decides=True)
async def snooze(ask: Ask) -> Card:
    name, rest = image_and_rest(ask, "comment", "snooze IMAGE 3d", "snooze dotnet-sdk-8 3d")
    pause, reason = _pause(ask.data["pause"], rest) if "pause" in ask.data else _pause(*first(rest))
    if pause is None:
        raise CommandError("For how long? For example snooze dotnet-sdk-8 3d, with m, h, d or w.")
    return hold_card(await ask.desk.holds.snooze(name, ask.person, pause, reason))


@command("hold IMAGE [7d] reason", "leave an image as it is, until it is released or for a while", decides=True)
async def hold(ask: Ask) -> Card:
    name, rest = image_and_rest(ask, "reason", "hold IMAGE reason", "hold dotnet-sdk-8 breaks our proxy")
    word, _ = first(rest)
    if word.isdecimal() and not ask.pressed:
        raise CommandError(f"How long is {word[:6]}? For example hold {name} {word[:6]}d reason, with m, h, d or w.")
    pause, reason = (None, rest) if ask.pressed else _pause(*first(rest))
    return hold_card(await ask.desk.holds.hold(name, ask.person, reason, pause))


@command("release IMAGE", "end a hold or a snooze, and check the image", decides=True)
async def release(ask: Ask) -> Card | None:
    name, _ = image_and_rest(ask, "reason", "release IMAGE", "release dotnet-sdk-8")
    await ask.desk.holds.release(name, ask.person)
    return await check_now(ask, [name])


def _pause(word: str, rest: str) -> tuple[timedelta | None, str]:
    """The duration, and what follows it; without one the word belongs to what follows. Raises CommandError."""
    try:
        pause = parse_pause(word)
    except ValueError as error:
        raise CommandError(f"{error}.") from None
    return (pause, rest) if pause else (None, f"{word} {rest}".strip())
