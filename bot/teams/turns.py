"""What Teams sends, one method each: a message or a card action becomes a command, and its answer a reply."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from botbuilder.core import ActivityHandler, InvokeResponse, TurnContext
from botbuilder.schema import Activity

from bot.core.conversations import Conversation, ConversationKind
from bot.core.losses import Losses
from bot.core.people import Person
from bot.core.ports import CardStore
from bot.errors import BotError, CommandError, NotFound
from bot.teams.adapter import tenant_of
from bot.teams.cards.card import Card, arguments
from bot.teams.cards.text import text_card
from bot.teams.commands.asks import Ask, Desk
from bot.teams.commands.table import run, run_text
from bot.teams.connector import Connectors
from bot.teams.notifier import card_activity
from bot.teams.parsing import bot_mentions, clean

logger = logging.getLogger(__name__)

# https://learn.microsoft.com/adaptive-cards/authoring-cards/universal-action-model#response-format
MESSAGE = "application/vnd.microsoft.activity.message"
CARD = "application/vnd.microsoft.card.adaptive"
LONGEST_INPUT = 1000
REMEMBERED = 10_000  # conversations; a tenant has fewer that talk within a minute
# https://learn.microsoft.com/microsoftteams/platform/bots/how-to/conversations/subscribe-to-conversation-events
TEAM_EVENTS = {
    "teamArchived": "its team was archived",
    "teamDeleted": "its team was deleted",
    "teamHardDeleted": "its team was deleted",
}


class Turns(ActivityHandler):  # type: ignore[misc]
    """The bot, as the SDK's adapter sees it."""

    def __init__(self, desk: Desk, conversations: CardStore, connectors: Connectors, losses: Losses) -> None:
        super().__init__()
        self._desk = desk
        self._conversations = conversations
        self._connectors = connectors
        self._losses = losses
        self._principal_names: dict[str, str] = {}
        self._remembered: dict[Conversation, tuple[datetime, int]] = {}  # in which minute, and after how many losses

    async def on_message_activity(self, turn_context: TurnContext) -> None:
        activity = turn_context.activity
        ask = await self._ask(activity)
        if isinstance(activity.value, dict) and not activity.text:  # a card from before Action.Execute was known
            answer = await self._answer(ask, str(activity.value.get("verb", "")), activity.value)
        else:
            text = clean(activity.text or "", bot_mentions(activity.entities or [], activity.recipient.id))
            answer = await _told(lambda: run_text(ask, text))
        if answer:
            await _reply(turn_context, card_activity(answer))

    async def on_invoke_activity(self, turn_context: TurnContext) -> InvokeResponse:
        activity = turn_context.activity
        value = activity.value if isinstance(activity.value, dict) else {}
        action = value.get("action")
        if activity.name != "adaptiveCard/action" or not isinstance(action, dict):
            return InvokeResponse(status=501, body=None)
        data = action.get("data")
        ask = await self._ask(activity)
        answer = await self._answer(ask, str(action.get("verb", "")), data if isinstance(data, dict) else {})
        return InvokeResponse(status=200, body=_invoke_body(answer))

    async def on_installation_update(self, turn_context: TurnContext) -> None:
        """Installed in a team or group chat: it is told about everything until somebody says otherwise.

        https://learn.microsoft.com/microsoftteams/platform/bots/how-to/conversations/subscribe-to-conversation-events
        """
        activity = turn_context.activity
        if activity.action == "remove":
            await self._removed(activity)
        elif activity.action != "remove-upgrade":  # a newer version of the app follows
            await self._remember(activity, installed=True)

    async def on_conversation_update_activity(self, turn_context: TurnContext) -> None:
        activity = turn_context.activity
        bot_id, data = activity.recipient.id, _channel_data(activity)
        event = str(data.get("eventType"))
        if any(member.id == bot_id for member in activity.members_removed or []):
            await self._removed(activity)
        elif event in TEAM_EVENTS:
            await self._losses.team(_id_in(data, "team"), TEAM_EVENTS[event])
        elif event == "channelDeleted":
            await self._losses.conversation(_id_in(data, "channel"), "it was deleted")
        else:
            added = any(member.id == bot_id for member in activity.members_added or [])
            await self._remember(activity, installed=added)

    async def _removed(self, activity: Activity) -> None:
        """From a chat, or from a team and with it from all of its channels."""
        gone = _conversation(activity)
        await self._losses.conversation(gone.id, "the bot was removed from it")
        if gone.team_id:
            await self._losses.team(gone.team_id, "the bot was removed from its team")

    async def _answer(self, ask: Ask, verb: str, data: Mapping[str, Any]) -> Card | None:
        inputs = {key: clean(value)[:LONGEST_INPUT] for key, value in arguments(data).items()}
        return await _told(lambda: run(replace(ask, data=inputs or {"target": ""}), verb))

    async def _ask(self, activity: Activity) -> Ask:
        conversation = await self._remember(activity, installed=False)
        sender = activity.from_property
        name = (sender.name or "somebody")[:100]
        person = Person(id=sender.aad_object_id or sender.id, name=name, mri=sender.id)
        return Ask(
            desk=self._desk,
            person=person,
            identify=partial(self._identify, person, conversation),
            conversation=conversation,
        )

    async def _remember(self, activity: Activity, *, installed: bool) -> Conversation:
        """Keep where to post; what somebody decided about a known conversation stays."""
        seen = _conversation(activity)
        moment = (self._desk.clock.now().replace(second=0, microsecond=0), self._losses.count)
        if not installed and self._remembered.get(seen) == moment:
            return seen

        def merged(known: Conversation | None) -> Conversation:
            present = _merged(known, seen) if known else seen
            return present.install() if installed else present

        # Also when nothing changes: a conversation that was gone is back by saying something.
        await self._conversations.change_conversation(seen.id, merged)
        if len(self._remembered) >= REMEMBERED:
            self._remembered.clear()
        self._remembered[seen] = moment
        return seen

    async def _identify(self, person: Person, conversation: Conversation) -> Person:
        """The person with the user principal name, which is asked for until it is known.

        https://learn.microsoft.com/microsoftteams/platform/bots/how-to/get-teams-context#fetch-the-roster-or-user-profile
        """
        if person.id not in self._principal_names:
            connector = self._connectors.at(conversation.service_url)
            try:
                member = await connector.member(conversation.id, person.mri)
            except NotFound:
                return person
            if name := str(member.get("userPrincipalName") or ""):
                self._principal_names[person.id] = name
        return replace(person, principal_name=self._principal_names.get(person.id, ""))


async def _reply(turn_context: TurnContext, activity: Activity) -> None:
    """What `send_activity` does, without its deep copy of what nobody else has."""
    reference = TurnContext.get_conversation_reference(turn_context.activity)
    reply = TurnContext.apply_conversation_reference(activity, reference)
    await turn_context.adapter.send_activities(turn_context, [reply])


async def _told(command: Any) -> Card | None:
    """The command's answer; an error that has words for the person is the answer as well."""
    try:
        card: Card | None = await command()
    except CommandError as error:
        return text_card(str(error), suggestion=error.suggestion)
    except BotError as error:
        return text_card(f"That did not work: {error}.")
    except Exception:
        logger.exception("a command failed")
        return text_card("Something went wrong here, and nothing was changed by it that its card does not show.")
    return card


def _invoke_body(answer: Card | None) -> dict[str, Any]:
    """A private answer below the card for one-liners, else the card in its place, for the one who pressed."""
    if answer is None or answer.text:
        return {"statusCode": 200, "type": MESSAGE, "value": answer.text if answer else "Done."}
    return {"statusCode": 200, "type": CARD, "value": answer.content}


def _conversation(activity: Activity) -> Conversation:
    """The conversation without its thread. Outside of Teams a conversation is a personal one."""
    raw, data = activity.conversation, _channel_data(activity)
    kinds = {kind.value: kind for kind in ConversationKind}
    channel = data.get("channel")
    return Conversation(
        id=raw.id.partition(";messageid=")[0],
        service_url=activity.service_url,
        kind=kinds.get(raw.conversation_type or "", ConversationKind.PERSONAL),
        tenant_id=tenant_of(data, {}),
        name=str((channel or {}).get("name") or raw.name or "") if isinstance(channel, dict | None) else "",
        bot_id=activity.recipient.id if activity.recipient else "",
        team_id=_id_in(data, "team"),
    )


def _merged(known: Conversation, seen: Conversation) -> Conversation:
    return replace(
        known,
        service_url=seen.service_url,
        kind=seen.kind,
        tenant_id=seen.tenant_id,
        name=seen.name or known.name,
        bot_id=seen.bot_id,
        team_id=seen.team_id or known.team_id,
    )


def _channel_data(activity: Activity) -> Mapping[str, Any]:
    return activity.channel_data if isinstance(activity.channel_data, dict) else {}


def _id_in(data: Mapping[str, Any], key: str) -> str:
    """The id of the team or channel that an activity is about; empty when it is about none."""
    value = data.get(key)
    return str(value.get("id") or "") if isinstance(value, dict) else ""
