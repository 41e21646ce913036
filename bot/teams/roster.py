"""Who is in which conversation. Implements the port `Members`."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bot.core.conversations import Conversation
from bot.core.images import ApprovalRules
from bot.core.people import Person
from bot.core.ports import CardStore, Clock
from bot.errors import BotError, NotFound, PeerUnavailable
from bot.teams.cards.audience import one_of
from bot.teams.connector import Connector, Connectors

logger = logging.getLogger(__name__)

LIVES = timedelta(minutes=10)
UNKNOWN_LIVES = timedelta(minutes=1)
PATIENCE_S = 5  # a card can do without names, and Teams gives a turn about ten seconds
MOST_PAGES = 10
NOT_A_MEMBER = "MemberNotFoundInConversation"


@dataclass(frozen=True, slots=True)
class _Read:
    at: datetime
    people: tuple[Person, ...] | None

    def lives(self, now: datetime) -> bool:
        return now - self.at < (UNKNOWN_LIVES if self.people is None else LIVES)


class Roster:
    """Members of conversations. Whole rosters are for what cards show and are remembered; a right is asked anew."""

    def __init__(self, connectors: Connectors, conversations: CardStore, clock: Clock) -> None:
        self._connectors = connectors
        self._conversations = conversations
        self._clock = clock
        self._known: dict[str, Person] = {}  # by object id, and by principal name
        self._read: dict[str, _Read] = {}
        self._reading: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def in_channel(self, channel_id: str, person: Person) -> bool:
        channel = await self._conversations.conversation(channel_id)
        if channel is None:
            raise PeerUnavailable("the bot has never been in the channel that the catalog names")
        try:
            await self._connectors.at(channel.service_url).member(channel_id, person.mri)
        except NotFound as error:
            if error.code == NOT_A_MEMBER:
                return False
            raise
        return True

    async def people(self, conversation: Conversation) -> tuple[Person, ...] | None:
        """The members as of the last ten minutes; None when Teams does not tell."""
        async with self._reading[conversation.id]:
            read = self._read.get(conversation.id)
            if read is None or not read.lives(self._clock.now()):
                read = _Read(self._clock.now(), await self._ask(conversation))
                self._read[conversation.id] = read
                for person in read.people or ():
                    self._known |= {person.id.lower(): person, person.principal_name.lower(): person}
        return read.people

    async def who(self, rules: ApprovalRules) -> str:
        people = {approver: self._known.get(approver) for approver in rules.approvers}
        names = {person.name for person in people.values() if person}
        addresses = {approver for approver, person in people.items() if person is None and "@" in approver}
        others = len([person for person in people.values() if person is None]) - len(addresses)
        channels = [await self._conversations.conversation(channel) for channel in rules.channels]
        teams = [channel.name if channel and channel.name else "another channel" for channel in channels]
        return one_of([*sorted(names), *sorted(addresses)], others, teams)

    async def _ask(self, conversation: Conversation) -> tuple[Person, ...] | None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await _all_members(self._connectors.at(conversation.service_url), conversation.id)
        except (BotError, TimeoutError) as error:
            logger.info("the members of %s are not known: %s", conversation.id, error)
            return None


async def _all_members(connector: Connector, conversation_id: str) -> tuple[Person, ...] | None:
    """Everybody, page by page; None when there are more than anybody would want to see."""
    people: list[Person] = []
    token = ""
    for _ in range(MOST_PAGES):
        page = await connector.members(conversation_id, token)
        accounts = page.get("members")
        people += [_person(account) for account in accounts or [] if isinstance(account, dict) and account.get("id")]
        token = str(page.get("continuationToken") or "")
        if not token:
            return tuple(people)
    return None


def _person(account: Mapping[str, Any]) -> Person:
    """https://learn.microsoft.com/microsoftteams/platform/bots/how-to/get-teams-context"""
    mri = str(account["id"])
    return Person(
        id=str(account.get("aadObjectId") or account.get("objectId") or mri),
        name=str(account.get("name") or "")[:100],
        mri=mri,
        principal_name=str(account.get("userPrincipalName") or ""),
    )
