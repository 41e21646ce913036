"""How long the loops sleep."""

import pytest

from bot.core.runner import Pace
from bot.loops import until_next_look_s


@pytest.mark.parametrize(
    ("poll_interval_s", "polled", "hinted"), [(1, 1, 6), (10, 10, 60), (30, 30, 60), (300, 300, 300)]
)
def test_looks_are_rarer_while_hooks_tell(poll_interval_s: float, polled: float, hinted: float) -> None:
    """Six times rarer, but never more than a minute late, unless a longer interval was asked for."""
    assert until_next_look_s(Pace.POLL, poll_interval_s) == polled
    assert until_next_look_s(Pace.HINTS, poll_interval_s) == hinted
    assert until_next_look_s(Pace.IDLE, poll_interval_s) == 60
