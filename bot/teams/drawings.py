"""Cards of checks and rebuilds, drawn from what is stored for those who look at them."""

from collections.abc import Mapping
from datetime import tzinfo

from bot.core.checks import Check
from bot.core.conversations import Conversation, Subject
from bot.core.holds import in_force
from bot.core.images import PlatformImage
from bot.core.latency import WEEK, WEEKS, Latencies, latencies
from bot.core.people import Person
from bot.core.ports import CardStore, Clock
from bot.core.rebuilds import Rebuild, State
from bot.teams.audiences import Audiences
from bot.teams.cards.audience import Audience
from bot.teams.cards.card import Card
from bot.teams.cards.check import check_card
from bot.teams.cards.listing import pending_card
from bot.teams.cards.notice import Notice, expiry, notice, reminder
from bot.teams.cards.rebuild import rebuild_card
from bot.teams.cards.states import decidable, undecided
from bot.teams.links import message_link


class Drawings:
    """Draws a card as it is posted in a place, or as one person there sees it (`viewer`), and words the replies."""

    def __init__(
        self, store: CardStore, catalog: Mapping[str, PlatformImage], audiences: Audiences, clock: Clock, zone: tzinfo
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._audiences = audiences
        self._clock = clock
        self._zone = zone

    async def draw(self, subject: Subject, key: str, place: Conversation, viewer: Person | None = None) -> Card | None:
        """The card of a check or rebuild, by its id; None when there is none."""
        if subject is Subject.CHECK:
            return await self._check(int(key), place, viewer) if key.isdecimal() and len(key) < 10 else None
        rebuild = await self._store.rebuild(key)
        return await self._rebuild(rebuild, place, viewer) if rebuild else None

    async def pending(self, rebuilds: list[Rebuild], place: Conversation) -> Card | None:
        """What waits for an approval, with links to the cards that a place has; None when nothing does."""
        audience = await self._audience(rebuilds, place, None)
        posted = {rebuild.id: await self._store.card_of(rebuild.id, place.id) for rebuild in rebuilds}
        links = {id: message_link(place, activity_id) for id, activity_id in posted.items() if activity_id}
        for_all = Audience(may=audience.may)  # an answer is not edited, so nobody gets one of their own
        return pending_card(rebuilds, self._catalog, audience=for_all, links=links, now=self._clock.now())

    async def notice(self, rebuild: Rebuild, place: Conversation) -> Notice:
        """What is said in a place when a rebuild has ended."""
        if rebuild.state is not State.EXPIRED or rebuild.image not in self._catalog:
            return notice(rebuild)
        return expiry(rebuild, await self._audiences.called(place, rebuild))

    async def reminder(self, rebuild: Rebuild, place: Conversation) -> Notice | None:
        """What is said in a place when nobody decides; None when it is decided."""
        now = self._clock.now()
        if not decidable(rebuild, now) or rebuild.image not in self._catalog:
            return None
        audience = await self._audiences.of(place, [rebuild.image])
        return reminder(rebuild, await self._audiences.called(place, rebuild), audience.may[rebuild.image], now)

    async def _check(self, check_id: int, place: Conversation, viewer: Person | None) -> Card | None:
        check = await self._store.check(check_id)
        if check is None:
            return None
        rebuilds = await self._store.rebuilds_by_id(v.rebuild_id for v in check.verdicts if v.rebuild_id)
        images, now = place.images_of(check), self._clock.now()
        shown = [rebuild for rebuild in rebuilds.values() if not images or rebuild.image in images]
        return check_card(
            check,
            rebuilds,
            self._catalog,
            images=images,
            holds=in_force(await self._store.holds(), now),
            audience=await self._audience([each for each in shown if decidable(each, now)], place, viewer),
            latencies=await self._latencies(check),
            zone=self._zone,
            now=now,
        )

    async def _rebuild(self, rebuild: Rebuild, place: Conversation, viewer: Person | None) -> Card:
        now = self._clock.now()
        hold = in_force(await self._store.holds(), now).get(rebuild.image)
        children = await self._store.following(rebuild.id)
        asked = [rebuild] if undecided(rebuild, now) else []
        asked += [child for child in children if decidable(child, now)]
        audience = await self._audience(asked, place, viewer)
        image = self._catalog.get(rebuild.image)
        return rebuild_card(rebuild, image, children, hold=hold, audience=audience, now=now)

    async def _audience(self, asked: list[Rebuild], place: Conversation, viewer: Person | None) -> Audience:
        """Of the questions that a card still asks."""
        images = {rebuild.image for rebuild in asked if rebuild.image in self._catalog}
        return await self._audiences.of(place, sorted(images), viewer)

    async def _latencies(self, check: Check) -> Latencies | None:
        """What the weekly card says about the weeks before it, and says still when it is edited later."""
        if check.slot is None or check.partial:
            return None
        return latencies(await self._store.succeeded(check.checked_at - WEEKS * WEEK), check.checked_at)
