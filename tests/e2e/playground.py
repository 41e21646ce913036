"""The Agents Playground's page, driven like a person drives it. Every selector of the page is in this file."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.async_api import Browser, Locator, Page, Route, async_playwright, expect

from bot.demo.playground import ALEX, BOT_NAME, GROUP_CHAT_NAME, TEAM_NAME, Person

_CONVERSATIONS = "[role=region][aria-label='Chat and Teams Channel']"
# The messages have no name of their own: they are the pane right of the list of conversations.
_MESSAGES = "xpath=//*[@role='region'][@aria-label='Chat and Teams Channel']/../../following-sibling::div[1]"
_COMPOSE_BOX = "[data-lexical-editor=true]"
_MENTION_MENU = "#typeahead-menu [role=menuitem]"
_POST = ".fui-Card"
_CARD = ".ac-preview-panel > .ac-adaptiveCard"  # the card of a ShowCard is an .ac-adaptiveCard inside another
_ROW = ".ac-container"
_QUIET_CHROMIUM = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> Path | None:
    """The system's Chromium, or None."""
    found = shutil.which("chromium")
    return Path(found) if found else None


@asynccontextmanager
async def chromium(executable: Path) -> AsyncIterator[Browser]:
    """A headless browser that calls nobody by itself."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=_QUIET_CHROMIUM)
        try:
            yield browser
        finally:
            await browser.close()


class Chat:
    """The page at `url`, with one conversation chosen at a time. Waits up to `timeout_s` seconds for what it looks for.

    The page keeps the history, not the Playground: what was said before `open` is not on it. The bot hears of a
    conversation (installationUpdate and conversationUpdate) when it is chosen for the first time after `open`.
    """

    def __init__(self, page: Page, url: str, *, timeout_s: float = 10) -> None:
        self._page = page
        self._url = url
        self._messages = page.locator(_MESSAGES)
        self._newest_first = False
        self._mention_needed = False
        page.set_default_timeout(timeout_s * 1000)

    async def open(self, *, acting_as: Person = ALEX) -> None:
        """Show the page, in the personal chat.

        Buttons are pressed as `acting_as`. Typed messages are Alex Wilber's always: the Playground knows one author.
        """

        async def as_somebody_else(route: Route) -> None:
            response = await route.fetch()
            await route.fulfill(response=response, body=_with_current_user(await response.text(), acting_as))

        await self._page.route(_is_elsewhere, lambda route: route.abort())
        await self._page.route("**/_internal/v1/config", as_somebody_else)
        await self._page.goto(self._url)
        # The log beside the chat repeats every message, which would be found twice.
        await self._page.get_by_title("Hide log panel").click()
        await self.choose_personal()

    async def choose_personal(self) -> None:
        await self._choose("Personal Chat")
        self._newest_first = self._mention_needed = False

    async def choose_group(self) -> None:
        await self._choose(GROUP_CHAT_NAME)
        self._newest_first, self._mention_needed = False, True

    async def choose_channel(self, name: str) -> None:
        await self._choose(f"{TEAM_NAME} - {name}")
        self._newest_first = self._mention_needed = True

    async def send(self, text: str) -> None:
        """Type `text` and send it, in a channel as a new post; outside the personal chat the bot is mentioned first."""
        box = self._messages.locator(_COMPOSE_BOX).first
        await box.click()
        if self._mention_needed:
            await box.press_sequentially(f"@{BOT_NAME}")
            await self._page.locator(_MENTION_MENU, has_text=BOT_NAME).click()
            text = f" {text}"
        await box.press_sequentially(text)
        await box.press("Enter")
        await expect(box).to_have_text("")

    def newest_card(self, text: str) -> Locator:
        """The newest card that shows `text`."""
        card = self._page.locator(_CARD, has_text=text)
        if not self._newest_first:
            return self._messages.locator(card).last
        return self._messages.locator(_POST).filter(has=card).first.locator(card).last

    async def press(self, button: str, *, card: str, row: str = "") -> None:
        """Press the button titled `button` on the newest card that shows the text `card`, or in its row with `row`."""
        found = self._page.get_by_role("button", name=button, exact=True)
        within = self.newest_card(card)
        if row:
            within = within.locator(_ROW, has_text=row).filter(has=found).last
        await within.locator(found).click()

    async def fill_input(self, label: str, value: str, *, card: str) -> None:
        """Fill the input labelled `label` on the newest card that shows the text `card`."""
        await self.newest_card(card).get_by_label(label).fill(value)

    async def wait_for_text(self, text: str, timeout_s: float = 10) -> None:
        """Wait until a message or card of the chosen conversation shows `text`."""
        await self._messages.get_by_text(text).first.wait_for(timeout=timeout_s * 1000)

    async def wait_for_mention(self, name: str, text: str, timeout_s: float = 10) -> None:
        """Wait until a message (not a card) of the chosen channel shows `text` and mentions `name`."""
        message = self._messages.locator(_POST).locator("p", has_text=text)
        await message.locator("span", has_text=name).first.wait_for(timeout=timeout_s * 1000)

    async def posts(self) -> list[str]:
        """What the posts of the chosen channel show, with their replies, newest first."""
        return await self._messages.locator(_POST).filter(has_not_text="Start a new post").all_inner_texts()

    async def screenshot(self, path: Path) -> None:
        await self._page.screenshot(path=path)

    async def picture(self, card: str, path: Path, *, width_px: int | None = None) -> None:
        """A picture of the newest card that shows the text `card`, as wide as it is on a phone if a width is given."""
        width = f"{width_px}px" if width_px else "auto"
        style = await self._page.add_style_tag(content=f".ac-preview-panel {{ width: {width} !important }}")
        await self.newest_card(card).screenshot(path=path)
        await style.evaluate("style => style.remove()")

    async def _choose(self, conversation: str) -> None:
        item = self._page.locator(_CONVERSATIONS).get_by_role("treeitem", name=conversation, exact=True)
        await item.click()
        await self._messages.locator(_COMPOSE_BOX).first.wait_for()


def _is_elsewhere(url: str) -> bool:
    return urlsplit(url).hostname != "127.0.0.1"


def _with_current_user(config: str, person: Person) -> str:
    """The page's own configuration with `person` and the current user in each other's place."""
    document = json.loads(config)
    world = document["config"]
    me = world["currentUser"]
    if me["id"] == person.id:
        return config
    [other] = [user for user in world["users"] if user["id"] == person.id]
    world["currentUser"] = other
    world["users"] = [me if user is other else user for user in world["users"]]
    for group in [*world["groupChats"], *world["teams"]]:
        group["members"] = [me["id"] if member == other["id"] else member for member in group["members"]]
    return json.dumps(document)
