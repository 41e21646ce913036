"""The door at /api/messages: who may come in, and what bad input is answered."""

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.conftest import Bot, StartBot
from tests.peers.teams import ALEX

SDK = "dotnet-sdk-6"


def message(bot: Bot, **changes: Any) -> dict[str, Any]:
    """A message that the bot takes, with changes."""
    place = bot.teams.personal(ALEX)
    return place.activity(ALEX, {"type": "message", "text": "help", **changes})


async def status_of(bot: Bot, activity: dict[str, Any], **claims: Any) -> int:
    token = bot.teams.token(activity["serviceUrl"], **claims)
    return (await bot.teams.send(activity, token=token))[0]


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"iss": "https://example.com"}, id="another issuer"),
        pytest.param({"aud": "99999999-0000-4000-8000-000000000000"}, id="another bot"),
        pytest.param({"exp": 1}, id="expired"),
        pytest.param({"exp": None}, id="never expires"),
        pytest.param({"nbf": 4102444800}, id="not yet valid"),
        pytest.param({"serviceurl": "https://example.com"}, id="another service"),
        pytest.param({"serviceurl": None}, id="no service"),
    ],
)
async def test_a_token_with_a_wrong_claim_is_401(bot: Bot, claims: dict[str, Any]) -> None:
    """Each claim of a token is checked, and nothing is answered in the chat."""
    assert await status_of(bot, message(bot), **claims) == 401
    assert bot.teams.messages == []


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer nonsense", "Bearer a.b.c", "Basic eDp5", "Bearer " + "x" * 5000]
)
async def test_a_header_without_a_token_is_401(bot: Bot, header: str) -> None:
    """What is not a signed token is not let in."""
    status, _ = await bot.teams.post(json.dumps(message(bot)).encode(), {"Authorization": header})
    assert status == 401


async def test_a_token_signed_by_somebody_else_is_401(bot: Bot) -> None:
    """The right claims and key id with another key do not open the door."""
    assert await status_of(bot, message(bot)) == 200
    bot.teams.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert await status_of(bot, message(bot)) == 401


async def test_unknown_keys_are_looked_up_at_most_once_a_minute(bot: Bot) -> None:
    """A new signing key is found, but made-up key ids do not make the bot ask all the time."""
    assert await status_of(bot, message(bot)) == 200
    bot.teams.key_id = "key-2"
    for _ in range(5):
        assert await status_of(bot, message(bot)) == 401
    asked = bot.teams.calls.count(("GET", "/keys"))
    bot.clock.advance(timedelta(minutes=1))
    assert await status_of(bot, message(bot)) == 200
    assert bot.teams.calls.count(("GET", "/keys")) == asked + 1


async def test_another_tenant_is_403(bot: Bot) -> None:
    """Only the bot's own tenant may talk to it."""
    stranger = {"tenant": {"id": "99999999-0000-4000-8000-000000000000"}}
    assert await status_of(bot, message(bot, channelData=stranger)) == 403


async def test_the_bots_token_goes_to_known_hosts_only(start_bot: StartBot) -> None:
    """A service URL that is not on the list is refused before anything is sent there."""
    async with start_bot(ALLOWED_SERVICE_HOSTS="smba.trafficmanager.net") as bot:
        assert await status_of(bot, message(bot)) == 403
        assert [path for _, path in bot.teams.calls if "oauth2" in path] == []


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut off"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"type": "message"}', id="no conversation"),
        pytest.param(b"\xff\xfe", id="not text"),
        pytest.param(b"[" * 100_000, id="nested deeply"),
        pytest.param(
            b'{"type": 1, "serviceUrl": [], "channelId": {}, "conversation": "x", "from": null}', id="wrong types"
        ),
    ],
)
async def test_a_malformed_activity_is_400(bot: Bot, body: bytes) -> None:
    """What is not an activity is told so, whatever its token."""
    status, _ = await bot.teams.post(body, {"Authorization": f"Bearer {bot.teams.token(bot.teams.url)}"})
    assert status == 400


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"text": None}, id="no text"),
        pytest.param({"text": ["a"]}, id="text is a list"),
        pytest.param({"entities": "x"}, id="entities are text"),
        pytest.param({"entities": [{"type": "mention", "mentioned": "x", "text": 5}]}, id="a strange mention"),
        pytest.param({"from": {"id": "29:x", "name": 5}}, id="a name that is a number"),
        pytest.param({"timestamp": "yesterday"}, id="a strange time"),
        pytest.param({"recipient": None}, id="no recipient"),
        pytest.param({"attachments": [1]}, id="strange attachments"),
        pytest.param({"type": "invoke", "name": "adaptiveCard/action", "value": "x"}, id="an action without action"),
        pytest.param({"type": "invoke", "name": "composeExtension/query"}, id="an invoke that is not ours"),
        pytest.param({"type": "messageReaction", "reactionsAdded": [{"type": "like"}]}, id="a reaction"),
        pytest.param({"type": "no such type"}, id="an unknown type"),
    ],
)
async def test_odd_activities_are_never_our_failure(bot: Bot, changes: dict[str, Any]) -> None:
    """Whatever a proven sender sends, the answer is not a server error (501 says that an invoke is not known)."""
    assert await status_of(bot, message(bot, **changes)) in (200, 400, 501)


async def test_an_activity_that_is_too_large_is_413(bot: Bot) -> None:
    """More than Teams could send is not read."""
    status, _ = await bot.teams.post(b"x" * 300_000, {"Authorization": f"Bearer {bot.teams.token(bot.teams.url)}"})
    assert status == 413


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("status dotnet-skd-6", "Did you mean dotnet-sdk-6", id="a typo in the image"),
        pytest.param("staus dotnet-sdk-6", "Did you mean status dotnet-sdk-6", id="a typo in the command"),
        pytest.param("status aspnet", "dotnet-aspnet-6, dotnet-aspnet-8", id="an ambiguous name"),
        pytest.param("status nothing-like-it", "There is no image", id="an unknown image"),
        pytest.param("rebuild", "Something is missing", id="a missing argument"),
        pytest.param("approve", "Something is missing", id="nothing to approve"),
        pytest.param("approve zzzzzzzz", "There is no rebuild zzzzzzzz", id="an unknown id"),
        pytest.param("approve dotnet10", "There is no image dotnet10", id="no id, since ids have no 1 and 0"),
        pytest.param("reject dotnet-sdk-6 no", "has never been rebuilt", id="nothing to reject"),
        pytest.param("status " + "x" * 1900, "There is no image", id="a long name"),
        pytest.param("x" * 10_000, "characters", id="ten thousand characters"),
        pytest.param("what is going on", "do not know", id="small talk"),
        pytest.param("", "What I can do", id="nothing but a mention"),
        pytest.param("`STATUS`   `dotnet-sdk-6`", "dotnet-sdk-6 · fresh", id="back-ticks, capitals and spaces"),
        pytest.param("status\u00a0dotnet-sdk-6", "dotnet-sdk-6 · fresh", id="a space that does not break"),
        pytest.param("/pending", "Nothing is waiting", id="a slash"),
        pytest.param("schedule", "Monday, 30 November 2026 at 06:00 UTC", id="the next check"),
        pytest.param("history", "", id="an empty history"),
    ],
)
async def test_whatever_is_typed_gets_a_helpful_answer(bot: Bot, text: str, told: str) -> None:
    """Mistakes are answered with what was probably meant, in the channel as in a personal chat."""
    answer = await bot.teams.channel().ask(text)
    assert told in answer.visible
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("text", ["<at>Everyone</at>", "**bold** [link](https://example.com)", "![x](y)", "<script>"])
async def test_markup_in_an_argument_stays_text(bot: Bot, text: str) -> None:
    """Somebody's text cannot become a link, a mention or formatting on a card of ours."""
    answer = await bot.teams.channel().ask(f"status {text}")
    blocks = [e["text"] for e in _elements(answer.card) if e.get("type") == "TextBlock"]
    assert not any("](" in block or "<at>" in block or "**" in block for block in blocks)
    assert answer.activity.get("entities") in (None, [])


async def test_a_suggestion_can_be_pressed(bot: Bot) -> None:
    """The button of "did you mean" runs what it says."""
    place = bot.teams.personal(ALEX)
    answer = await place.ask("status dotnet-skd-6")
    pressed = await place.press(answer, answer.buttons[0])
    assert pressed["type"] == "application/vnd.microsoft.card.adaptive"
    assert "dotnet-sdk-6 · fresh" in json.dumps(pressed["value"], ensure_ascii=False)


async def test_a_client_without_universal_actions_can_press_too(bot: Bot) -> None:
    """Action.Submit, the fallback of every button, arrives as a message and does the same."""
    bot.move_base(SDK)
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    approve = next(e for e in _elements(summary.card) if e.get("title") == "Approve")
    place = bot.teams.channel()
    submit = {"type": "message", "value": approve["fallback"]["data"], "replyToId": summary.id}
    status, _ = await bot.teams.send(place.activity(ALEX, submit))
    assert status == 200
    await bot.teams.until_shown(f"{SDK} · in ECR as")


async def test_a_removed_bot_posts_nothing_more(bot: Bot) -> None:
    """After the app was removed from a team, its channel is told nothing; after a new installation it is."""
    channel = bot.teams.channel()
    removed = {"type": "conversationUpdate", "membersRemoved": [{"id": channel.activity(ALEX, {})["recipient"]["id"]}]}
    assert (await bot.teams.send(channel.activity(ALEX, removed)))[0] == 200
    await bot.next_week()
    await bot.app.notifier.deliver()
    assert bot.teams.messages == []
    await channel.install()
    await bot.next_week()
    await bot.teams.until_shown("all 3 images are fresh")


async def test_subscriptions_choose_what_a_channel_is_told(bot: Bot) -> None:
    """A channel that subscribed to one image is told about that one only; after `unsubscribe` about none."""
    channel = bot.teams.channel()
    await channel.ask(f"subscribe {SDK}")
    bot.move_base(SDK)
    bot.move_base("dotnet-aspnet-8")
    await bot.next_week()
    summary = await bot.teams.until_shown(SDK, "waits for approval")
    assert "dotnet-aspnet-8" not in summary.text
    await channel.ask("unsubscribe")
    posted = len(bot.teams.messages)
    await bot.next_week()
    await bot.app.notifier.deliver()
    assert len(bot.teams.messages) == posted


async def test_pending_and_history_tell_what_waits_and_what_was(bot: Bot) -> None:
    """`pending` lists the question with its buttons, `history` what came of it."""
    channel = bot.teams.channel()
    bot.move_base(SDK)
    await bot.next_week()
    await bot.teams.until_shown(SDK, "waits for approval")
    pending = await channel.ask("pending")
    assert SDK in pending.visible
    await channel.ask(f"approve {SDK} looks good")
    await bot.teams.until_shown(f"{SDK} · in ECR as")
    assert "Nothing is waiting" in (await channel.ask("pending")).visible
    history = await channel.ask(f"history {SDK}")
    assert "6.0-bullseye-slim-1.4.0" in history.visible
    assert "Alex Wilber" in history.text


async def test_a_typed_check_answers_where_it_was_asked(bot: Bot) -> None:
    """`check` in a personal chat answers there; what is new to ask goes to the channel as well."""
    place = bot.teams.personal(ALEX)
    fresh = await place.ask("check")
    assert "all 3 images are fresh" in fresh.visible
    assert fresh.conversation == place.id
    bot.move_base(SDK)
    await place.ask(f"check {SDK}")
    await bot.teams.until_shown(SDK, "waits for approval", where=place)
    await bot.teams.until_shown(SDK, "waits for approval", where=bot.teams.channel())


async def test_twenty_people_type_at_once(bot: Bot) -> None:
    """Turns run side by side and every one is answered."""
    places = [replace(bot.teams.personal(ALEX), id=f"a:{number}") for number in range(20)]
    await asyncio.gather(*(place.say(f"status {SDK}") for place in places))
    assert sorted(m.conversation for m in bot.teams.messages) == sorted(place.id for place in places)


def _elements(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [element for item in node for element in _elements(item)]
    if not isinstance(node, dict):
        return []
    return [node, *(element for value in node.values() for element in _elements(value))]
