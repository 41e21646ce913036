"""What all cards are made of: texts, buttons, forms, and details that open on demand.

Outside text goes into rich text, which knows no Markdown. A TextBlock, which does, is for titles only, because
escaping alone would not do: phones show some backslashes. https://github.com/microsoft/AdaptiveCards/issues/5590
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from microsoft_teams.cards.core import (
    Action,
    ActionSet,
    ActionStyle,
    AdaptiveCard,
    CardElement,
    Container,
    ContainerStyle,
    ExecuteAction,
    FontType,
    OpenUrlAction,
    RefreshDefinition,
    RichTextBlock,
    ShowCardAction,
    Spacing,
    SubmitAction,
    TextBlock,
    TextColor,
    TextInput,
    TextRun,
    TextSize,
    TextWeight,
    ToggleVisibilityAction,
)

from bot.teams.cards.formats import Safe, clean, escape

BUDGET = 20_000  # characters of JSON; Teams refuses messages of about twice that
ROOM = BUDGET - 1_500  # of which for rows, where there can be many
DETAILS_ROOM = 4_000
LINKS_ROOM = 2_200


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """An answer. `content` is an Adaptive Card 1.5, ready for JSON; `summary` is for toasts and screen readers.

    `text` is all that a one-liner says, in plain words, for where there is no place for a card; empty for others.
    """

    content: dict[str, Any]
    summary: str
    text: str = ""


def card(
    summary: str,
    body: Sequence[CardElement],
    actions: Sequence[Action | None] = (),
    *,
    text: str = "",
    refresh: RefreshDefinition | None = None,
) -> Card:
    """Put a card together; actions that are None are left out."""
    summary = clean(summary)
    buttons = [action for action in actions if action]
    built = AdaptiveCard(lang="en", fallback_text=summary, body=list(body), actions=buttons or None, refresh=refresh)
    content: dict[str, Any] = built.model_dump(exclude_none=True)
    # https://learn.microsoft.com/microsoftteams/platform/task-modules-and-cards/cards/cards-format#full-width-adaptive-card
    return Card(content=content | {"msteams": {"width": "Full"}}, summary=summary, text=text)


# Texts


def heading(*parts: str) -> TextBlock:
    """A title. Outside text in it is escaped."""
    text = "".join(part if isinstance(part, Safe) else escape(part) for part in parts)
    return TextBlock(text=text, style="heading", size="Medium", weight="Bolder", wrap=True)


def run(
    text: str,
    *,
    bold: bool = False,
    mono: bool = False,
    subtle: bool = False,
    color: TextColor | None = None,
    size: TextSize | None = None,
) -> TextRun:
    """A piece of a line with a look of its own. Outside text in it is cleaned."""
    weight: TextWeight | None = "Bolder" if bold else None
    font: FontType | None = "Monospace" if mono else None
    safe = text if isinstance(text, Safe) else clean(text)
    return TextRun(text=safe, weight=weight, font_type=font, is_subtle=subtle or None, color=color, size=size)


def linked(text: str, url: str) -> TextRun:
    """A piece of a line that opens a web page."""
    return TextRun(text=clean(text), select_action=OpenUrlAction(url=url), color="Accent")


def line(
    *parts: str | TextRun,
    subtle: bool = False,
    spacing: Spacing | None = "Small",
    separator: bool = False,
) -> RichTextBlock:
    """A paragraph that wraps. Strings are cleaned unless they are Safe, and take the look of the line."""
    runs: list[CardElement] = []
    for is_text, group in groupby(parts, key=lambda part: isinstance(part, str)):
        if is_text:
            text = Safe("".join(part if isinstance(part, Safe) else clean(str(part)) for part in group))
            runs += [run(text, subtle=subtle)] if text else []
        else:
            runs += [part for part in group if isinstance(part, TextRun)]
    return RichTextBlock(inlines=runs, spacing=spacing, separator=separator or None)


def band(*items: CardElement, style: ContainerStyle) -> Container:
    """The coloured top of a card."""
    return Container(items=list(items), style=style, bleed=True)


# Buttons


def button(title: str, verb: str, *, style: ActionStyle | None = None, **data: str) -> ExecuteAction:
    """A button that runs the chat command `verb` with `data` as its arguments.

    Clients that do not know Action.Execute send the same as a message.
    https://learn.microsoft.com/adaptive-cards/authoring-cards/universal-action-model#backward-compatibility
    """
    title = clean(title, 60)
    fallback = SubmitAction(title=title, data={"verb": verb, **data})
    return ExecuteAction(title=title, verb=verb, data=dict(data), style=style, fallback=fallback)


def link(title: str, url: str) -> OpenUrlAction | None:
    """A button that opens a page, None when there is no web page to open."""
    return OpenUrlAction(title=title, url=url) if url.startswith(("https://", "http://")) else None


def text_input(name: str, target: str, *, label: str, required: str = "") -> TextInput:
    """An input for one argument; `required` is what is said when it is left empty.

    Ids have to be unique within a card, or phones show nothing of it, so the target is part of the id;
    `arguments` takes it off again. https://github.com/MicrosoftDocs/msteams-docs/issues/7868
    """
    return TextInput(
        id=f"{name}.{target}",
        label=label,
        is_required=bool(required) or None,
        error_message=required or None,
        is_multiline=True,
    )


def arguments(data: Mapping[str, Any]) -> dict[str, str]:
    """The command's arguments in what a button sent: `target`, `comment`, `reason`, `text`.

    A client sends all inputs of the card; only those of the button's own target are meant.
    """
    found = {}
    for key, value in data.items():
        name, dot, owner = str(key).partition(".")
        if isinstance(value, str) and (not dot or owner == data.get("target")):
            found[name] = value
    return found


def form(title: str, body: Sequence[CardElement], action: Action) -> ShowCardAction:
    """A button that opens an inline form with a second button."""
    return ShowCardAction(title=title, card=AdaptiveCard(body=list(body), actions=[action]))


def details(
    target: str, *items: CardElement, links: Iterable[CardElement] = ()
) -> tuple[Container, ToggleVisibilityAction]:
    """What stays hidden until somebody presses *Why?*, and that button. `links`, which are long, come last."""
    shown = [*fitting(items, DETAILS_ROOM), *fitting(links, LINKS_ROOM)]
    hidden = Container(id=f"why.{target}", items=shown, is_visible=False, style="emphasis")
    return hidden, ToggleVisibilityAction(title="Why?", target_elements=[f"why.{target}"])


def action_set(*actions: Action | None) -> ActionSet:
    return ActionSet(actions=[action for action in actions if action], spacing="Small")


# Length


def weight(element: CardElement | Action | RefreshDefinition) -> int:
    """The characters of JSON that an element costs, in the ASCII that goes over the wire."""
    return len(json.dumps(element.model_dump(exclude_none=True)))


def fitting(rows: Iterable[CardElement], room: int = ROOM) -> list[CardElement]:
    """The first rows that together need no more than `room` characters of JSON."""
    fit: list[CardElement] = []
    for row in rows:
        room -= weight(row) + 2
        if room < 0:
            break
        fit.append(row)
    return fit


def more(left: int, command: str) -> list[CardElement]:
    """What is said below rows that did not fit; nothing when all did."""
    return [line(f"{left} more: ", run(command, mono=True), separator=True, spacing="Medium")] if left else []
