"""Links into Teams."""

from urllib.parse import quote, urlencode

from bot.core.conversations import Conversation, ConversationKind


def message_link(place: Conversation, activity_id: str) -> str:
    """The address of a message of the bot; empty in a personal chat, whose messages have none.

    https://learn.microsoft.com/microsoftteams/platform/concepts/build-and-test/deep-link-teams
    """
    if place.kind is ConversationKind.PERSONAL:
        return ""
    in_channel = {"tenantId": place.tenant_id, "parentMessageId": activity_id}
    in_chat = {"tenantId": place.tenant_id, "context": '{"contextType":"chat"}'}
    query = urlencode(in_channel if place.kind is ConversationKind.CHANNEL else in_chat)
    return f"https://teams.microsoft.com/l/message/{quote(place.id, safe='')}/{quote(activity_id, safe='')}?{query}"
