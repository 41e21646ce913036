"""What a conversation is told about, as wishes are added and taken back."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.checks import Status, Verdict
from bot.core.conversations import Conversation, ConversationKind

NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
NAMES = ("a", "b", "c")


def conversation() -> Conversation:
    return Conversation(id="x", service_url="https://smba.trafficmanager.net/", kind=ConversationKind.CHANNEL)


@pytest.mark.parametrize(
    ("wishes", "about"),
    [
        pytest.param(["subscribe"], "all images", id="all"),
        pytest.param(["subscribe", "subscribe a"], "a", id="narrowed"),
        pytest.param(["subscribe a", "subscribe b"], "a, b", id="one more"),
        pytest.param(["subscribe a b", "subscribe"], "all images", id="widened"),
        pytest.param(["subscribe a a", "subscribe a"], "a", id="twice"),
        pytest.param(["subscribe a b", "unsubscribe a"], "b", id="one less"),
        pytest.param(["subscribe a", "unsubscribe a"], "nothing", id="the last one"),
        pytest.param(["subscribe a", "unsubscribe b"], "a", id="one that was not told"),
        pytest.param(["unsubscribe a"], "nothing", id="nothing stays nothing"),
        pytest.param(["subscribe a", "unsubscribe", "subscribe b"], "b", id="anew"),
        pytest.param(["subscribe", "unsubscribe a"], "all images except a", id="an exception"),
        pytest.param(["subscribe", "unsubscribe a b", "subscribe a"], "all images except b", id="one exception less"),
        pytest.param(["subscribe", "unsubscribe a", "subscribe b"], "b", id="narrowed in spite of an exception"),
        pytest.param(["subscribe failures"], "failures of all images", id="failures"),
        pytest.param(["subscribe a failures", "subscribe b failures"], "failures of a, b", id="more failures"),
        pytest.param(["subscribe a failures", "subscribe b"], "a, b", id="everything again"),
        pytest.param(["subscribe failures", "unsubscribe a"], "failures of all images except a", id="fewer failures"),
        pytest.param(["subscribe failures", "unsubscribe", "subscribe a"], "a", id="failures end"),
    ],
)
def test_wishes(wishes: list[str], about: str) -> None:
    """What was wished for one after the other, in words."""
    told = conversation()
    for wish in wishes:
        verb, *names = wish.split()
        images = [name for name in names if name != "failures"]
        if verb == "subscribe":
            told = told.subscribe(images, failures_only="failures" in names)
        else:
            told = told.unsubscribe(images)
    assert told.about == about


@given(st.lists(st.tuples(st.booleans(), st.lists(st.sampled_from(NAMES)), st.booleans())))
def test_the_last_wish_counts(wishes: list[tuple[bool, list[str], bool]]) -> None:
    """Whatever came before, an image named by `subscribe` is told and one named by `unsubscribe` is not."""
    told = conversation()
    for subscribing, names, failures in wishes:
        told = told.subscribe(names, failures_only=failures) if subscribing else told.unsubscribe(names)
        assert all(told.wants(name) is subscribing for name in (names or NAMES))


OUTAGES = {
    "an image that works": ("known told", [False]),
    "an outage is news once": ("unknown told · unknown told · unknown told", [True, False, False]),
    "its end is news once": ("unknown told · known told · known told", [True, True, False]),
    "what nobody was told stays news": ("unknown · unknown told · known · known told", [True, True, True, True]),
    "an outage nobody was told of": ("unknown · known", [True, False]),
    "it comes back before its end was told": ("unknown told · known · unknown told", [True, True, False]),
    "a second outage": ("unknown told · known told · unknown told", [True, True, True]),
}


@pytest.mark.parametrize(("story", "news"), OUTAGES.values(), ids=OUTAGES)
def test_an_outage_is_news_when_it_begins_and_when_it_ends(story: str, news: list[bool]) -> None:
    """News are what those who are told about the image do not know yet."""
    before: Verdict | None = None
    found = []
    for number, chapter in enumerate(story.split(" · ")):
        status = Status.UNKNOWN if chapter.startswith("unknown") else Status.FRESH
        verdict = Verdict(name="a", status=status, reason="", base="").after(before, NOW + number * HOUR)
        found.append(verdict.is_news)
        before = verdict.once_told() if chapter.endswith("told") else verdict
    assert found == news


def test_an_outage_keeps_its_beginning() -> None:
    """The first verdict that could not be had dates it, and the first one after it still knows."""
    first = Verdict(name="a", status=Status.UNKNOWN, reason="", base="").after(None, NOW).once_told()
    second = Verdict(name="a", status=Status.UNKNOWN, reason="", base="").after(first, NOW + HOUR)
    last = Verdict(name="a", status=Status.STALE, reason="", base="").after(second, NOW + 2 * HOUR)
    assert (first.unknown_since, second.unknown_since, last.unknown_since) == (NOW, NOW, NOW)
    assert last.once_told().unknown_since is None
