"""Commands about what a conversation is told."""

from bot.core.subscribing import Wish
from bot.errors import CommandError
from bot.teams.cards.card import Card
from bot.teams.cards.text import text_card
from bot.teams.commands.asks import ALL, Ask, command

FAILURES = "failures"  # no image may be called so


@command("subscribe [IMAGE…] [failures]", "tell this conversation about checks and rebuilds, or about failures only")
async def subscribe(ask: Ask) -> Card:
    names = ask.images(FAILURES, ALL)
    images = [] if ALL in names else [name for name in names if name != FAILURES]
    return await _tell(ask, lambda told: told.subscribe(images, failures_only=FAILURES in names))


@command("unsubscribe [IMAGE…]", "stop telling this conversation")
async def unsubscribe(ask: Ask) -> Card:
    told = await ask.told()
    names = ask.images(FAILURES, ALL, *told.images, *told.excluded)  # also those that left the catalog
    if FAILURES in names:
        everything = " ".join(["subscribe", *told.images])
        raise CommandError(f"To be told about everything again, type {everything}.", suggestion=everything)
    return await _tell(ask, lambda told: told.unsubscribe([] if ALL in names else names))


async def _tell(ask: Ask, wish: Wish) -> Card:
    told = await ask.desk.subscriptions.tell(ask.conversation, wish, ask.person, ask.command)
    named = (*told.images, *told.excluded) if told.subscribed else ()
    strange = [name for name in named if name not in ask.desk.reads.catalog]
    missing = f" The catalog does not have {', '.join(strange)} now." if strange else ""
    return text_card(f"This conversation is told about {told.about} from now on.{missing}")
