"""The table of commands. A button's verb is a command's name, so typing and pressing are one function.

To add a command, write one function with `@command(...)` in a module beside this one, and add it here.
"""

from dataclasses import replace

from bot.errors import CommandError
from bot.teams.cards.card import Card
from bot.teams.cards.help import help_card
from bot.teams.commands.asks import Ask, Command, command
from bot.teams.commands.deciding import approve, cancel, now, rebuild, reject, retry, rollback
from bot.teams.commands.looking import check, history, list_, pending, schedule, status, view
from bot.teams.commands.stopping import hold, release, snooze
from bot.teams.commands.subscribing import subscribe, unsubscribe
from bot.teams.parsing import shown, similar, split


async def run(ask: Ask, name: str) -> Card | None:
    """Run a command by its name. Returns its answer, None when a card arrives by itself. Raises CommandError."""
    if name not in COMMANDS:
        raise _unknown(name, ask.text)
    chosen = COMMANDS[name]
    person = await ask.identify() if chosen.decides else ask.person
    return await chosen.function(replace(ask, command=name, person=person))


async def run_text(ask: Ask, text: str) -> Card | None:
    """Run what was typed. Raises CommandError."""
    words = split(text)
    return await run(replace(ask, text=words.rest), words.command or "help")


def _unknown(name: str, rest: str) -> CommandError:
    guess = similar(name, [each.name for each in COMMANDS.values() if not each.hidden])
    if guess is None:
        return CommandError(f"I do not know {shown(name)}. Type help to see what I can do.", suggestion="help")
    suggestion = f"{guess} {rest}".strip()
    return CommandError(f"There is no command {shown(name)}. Did you mean {shown(suggestion)}?", suggestion=suggestion)


@command("help", "what I can do")
async def help_(ask: Ask) -> Card:
    return help_card([(each.usage, each.help) for each in COMMANDS.values() if not each.hidden])


@command("run TEXT", "what a suggestion's button does", hidden=True)
async def run_suggestion(ask: Ask) -> Card | None:
    return await run_text(replace(ask, data={}), ask.data.get("text", ""))


COMMANDS: dict[str, Command] = {
    each.name: each
    for each in (
        help_,
        list_,
        status,
        check,
        rebuild,
        approve,
        reject,
        cancel,
        now,
        retry,
        rollback,
        pending,
        history,
        snooze,
        hold,
        release,
        subscribe,
        unsubscribe,
        schedule,
        view,
        run_suggestion,
    )
}
