"""From what a person typed to the command that was meant."""

import html
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from rapidfuzz import fuzz, process

from bot.errors import CommandError

LONGEST_TEXT = 2000
SIMILAR = 70  # of 100; below it a guess annoys more than it helps
SHOWN = 60


@dataclass(frozen=True, slots=True)
class Words:
    """A message taken apart: the first word in lower case, and the rest as it was typed."""

    command: str
    rest: str


def clean(text: str, mentions: Iterable[str] = ()) -> str:
    """The text without mentions of the bot, back-ticks, HTML entities and needless spaces, on one line."""
    for mention in mentions:
        text = text.replace(mention, " ")
    text = html.unescape(re.sub(r"</?(?:p|div|br|span|code|pre)\b[^<>]*>", " ", text))
    text = re.sub(r"[\u0000-\u001f\u007f\u00a0\u200b-\u200f\u2028-\u202e\u2060\ud800-\udfff\ufeff`]+", " ", text)
    return " ".join(text.split())


def bot_mentions(entities: Iterable[Any], bot_id: str) -> list[str]:
    """The `<at>…</at>` texts that mean the bot.

    https://learn.microsoft.com/microsoftteams/platform/bots/how-to/conversations/channel-and-group-conversations
    """
    found = []
    for entity in entities:
        values = getattr(entity, "additional_properties", {})
        mentioned = values.get("mentioned")
        if entity.type == "mention" and isinstance(mentioned, dict) and mentioned.get("id") == bot_id:
            found.append(str(values.get("text") or ""))
    return [text for text in found if text]


def split(text: str) -> Words:
    """Take a cleaned message apart. Raises CommandError when it is longer than any command."""
    if len(text) > LONGEST_TEXT:
        raise CommandError(f"That message has {len(text)} characters; a command has a few words.", suggestion="help")
    command, _, rest = text.partition(" ")
    return Words(command.lower().lstrip("/"), rest.strip())


def image_name(text: str, names: Collection[str], command: str) -> str:
    """The image of the catalog that was named. Raises CommandError with the right spelling for a near miss."""
    word = text.lower()
    if word in names:
        return word
    within = [name for name in names if word in name]
    if len(within) > 1:
        several = ", ".join(within[:8]) + (", …" if len(within) > 8 else "")
        raise CommandError(f"{shown(text)} may be several images: {several}.")
    guess = within[0] if within else similar(word, names)
    if guess:
        raise CommandError(f"There is no image {shown(text)}. Did you mean {guess}?", suggestion=f"{command} {guess}")
    raise CommandError(f"There is no image {shown(text)} in the catalog.", suggestion="list")


def similar(word: str, names: Iterable[str]) -> str | None:
    """The name that looks most like the word, None when none does."""
    best = process.extractOne(word[:SHOWN], list(names), scorer=fuzz.ratio, score_cutoff=SIMILAR)
    return best[0] if best else None


def shown(text: str) -> str:
    """Somebody's text within a sentence: cut to a length."""
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
