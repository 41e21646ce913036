"""The main job as a person meets it: the demo, Microsoft's chat page and a browser.

Pictures of what is on the screen are left in `artifacts/`.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, ViewportSize, expect

from bot.demo.playground import ALEX, CHANNEL_NAME, COLLEAGUES, find_playground
from tests.e2e.demo import free_place, is_free, started
from tests.e2e.playground import Chat, chromium, find_chromium

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        find_chromium() is None, reason="Chromium is not installed; on Debian: apt-get install chromium"
    ),
    pytest.mark.skipif(
        find_playground() is None,
        reason="the Agents Playground is not installed; it needs Node.js with npm, then: make playground",
    ),
]

ARTIFACTS = Path(__file__).parents[2] / "artifacts"
DESKTOP = ViewportSize(width=1280, height=1000)
PHONE_PX = 340  # a card in Teams on a phone of 390 pixels
ADELE = next(person for person in COLLEAGUES if person.given_name == "Adele")  # whom the catalog does not name
OWN = "Approve or reject…"
CHECK_S, RUN_S = 40, 60


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    executable = find_chromium()
    assert executable
    ARTIFACTS.mkdir(exist_ok=True)
    async with chromium(executable) as browser:
        yield browser


async def test_from_a_new_base_to_ecr(tmp_path: Path, browser: Browser) -> None:
    """Commands are answered; new bases are asked for on one card; an approver gets the buttons, others see who may."""
    place = free_place(tmp_path)
    async with started(place) as demo:
        await demo.until_said("Ctrl-C ends the demo")
        alex = Chat(await browser.new_page(viewport=DESKTOP), place.page)
        await alex.open()
        adele = Chat(await browser.new_page(viewport=DESKTOP), place.page)
        await adele.open(acting_as=ADELE)
        await adele.choose_channel(CHANNEL_NAME)

        await _is_answered(alex, "help", "rebuild IMAGE")
        await _is_answered(alex, "list", "6 images")
        await _is_answered(alex, "status dotnet-sdk-6", "6.0-bullseye-slim-1.3.0")
        await _is_answered(alex, "status dotnet-skd-6", "Did you mean dotnet-sdk-6")

        await alex.choose_channel(CHANNEL_NAME)
        await alex.wait_for_text("2 stale", CHECK_S)
        assert len(await alex.posts()) == 1
        await _keep(alex, "2 stale", "summary")

        await expect(adele.newest_card("2 stale")).to_contain_text("May approve: Alex Wilber or Megan Bowen.")
        await adele.press(OWN, card="2 stale")
        await adele.wait_for_text("You are not among them.")
        await _keep(adele, "2 stale", "who-may")
        assert "not among them" not in "".join(await alex.posts())
        await expect(adele.newest_card("2 stale").get_by_role("button", name="Approve")).to_have_count(0)

        await alex.send("pending")
        await alex.wait_for_text("2 rebuilds wait for approval")
        await _keep(alex, "2 rebuilds wait", "pending")
        await alex.press(OWN, card="2 stale")
        await expect(alex.newest_card("2 stale").get_by_role("button", name="Approve", exact=True)).to_have_count(2)
        await alex.press("Why?", card="2 stale", row="dotnet-sdk-6")
        await expect(alex.newest_card("2 stale").get_by_label("Comment for the approval").first).to_be_visible()
        await _keep(alex, "2 stale", "approver")
        await alex.press("Approve", card="2 stale", row="dotnet-sdk-6")
        await alex.wait_for_text("dotnet-sdk-6 · building", RUN_S)
        await _keep(alex, "dotnet-sdk-6 · ", "building")
        await alex.wait_for_text("dotnet-sdk-6 · in ECR as 6.0-bullseye-slim-1.4.0", RUN_S)
        await alex.wait_for_mention(ALEX.name, "dotnet-sdk-6")
        await _keep(alex, "dotnet-sdk-6 · ", "in-ecr")
        card = alex.newest_card("dotnet-sdk-6 · ")
        await expect(card).to_contain_text("Digest")
        await expect(card).to_contain_text("kB")
        await expect(card).to_contain_text("took")
        await expect(card.get_by_role("link", name="Open run")).to_be_visible()
        await expect(alex.newest_card("2 stale")).to_contain_text("in ECR as 6.0-bullseye-slim-1.4.0")

        await alex.press(OWN, card="2 stale")
        await alex.press("Approve", card="2 stale", row="dotnet-aspnet-10")
        await alex.wait_for_text("dotnet-aspnet-10 · test failed", RUN_S)
        await alex.wait_for_mention(ALEX.name, "dotnet-aspnet-10")
        await _keep(alex, "dotnet-aspnet-10 · ", "test-failed")
        failed = alex.newest_card("dotnet-aspnet-10 · ")
        await expect(failed).to_contain_text("✕ Test")
        await expect(failed).to_contain_text("expected 200, got 500")
        await expect(failed.get_by_role("button", name="Retry")).to_be_visible()
        assert [await _posts(alex, text) for text in ("2 stale", "dotnet-sdk-6 · ", "dotnet-aspnet-10 · ")] == [1, 1, 1]
        assert [run["parameters"]["image"] for run in place.runs] == ["dotnet-sdk-6", "dotnet-aspnet-10"]


async def test_ctrl_c_in_the_middle_of_a_run(tmp_path: Path, browser: Browser) -> None:
    """Stopped during a run and started again, the demo follows it to its end; it is queued and posted once."""
    place = free_place(tmp_path)
    async with started(place) as demo:
        await demo.until_said("Ctrl-C ends the demo")
        chat = Chat(await browser.new_page(viewport=DESKTOP), place.page)
        await chat.open()
        await chat.choose_channel(CHANNEL_NAME)
        await chat.send("rebuild dotnet-aspnet-6")
        await chat.wait_for_text("dotnet-aspnet-6 · testing", RUN_S)
        assert await demo.stop() == 0
        assert "Traceback" not in demo.text
    assert all(map(is_free, place.ports))  # nothing that it started is left
    async with started(place) as demo:
        await demo.until_said("Ctrl-C ends the demo")
        chat = Chat(await browser.new_page(viewport=DESKTOP), place.page)
        await chat.open()
        await chat.choose_channel(CHANNEL_NAME)
        await chat.wait_for_text("dotnet-aspnet-6 · in ECR as 6.0-bullseye-slim-1.3.1", RUN_S)
        await chat.wait_for_mention(ALEX.name, "dotnet-aspnet-6")
        await chat.screenshot(ARTIFACTS / "after-a-restart.png")
        assert [await _posts(chat, f"dotnet-aspnet-6{mark} in ECR") for mark in (" ·", ":")] == [1, 1]
        [run] = place.runs
        assert [len(attempts) for attempts in run["stages"].values()] == [1, 1, 1]


async def _is_answered(chat: Chat, text: str, answer: str) -> None:
    await chat.send(text)
    await chat.wait_for_text(answer)
    await _keep(chat, answer, text.replace(" ", "-"))


async def _posts(chat: Chat, text: str) -> int:
    """How many posts of the channel show `text`."""
    return sum(text in post for post in await chat.posts())


async def _keep(chat: Chat, card: str, name: str) -> None:
    """Pictures of the screen, and of the card as on a phone."""
    await chat.screenshot(ARTIFACTS / f"{name}.png")
    await chat.picture(card, ARTIFACTS / f"{name}-phone.png", width_px=PHONE_PX)
