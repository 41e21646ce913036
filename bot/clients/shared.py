"""One try for everybody who wants the same thing at the same time."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Shared(Generic[Key, Value]):
    """Callers of the same key join the try that is under way, and share its failure. Nothing is remembered."""

    def __init__(self) -> None:
        self._under_way: dict[Key, asyncio.Task[Value]] = {}

    async def get(self, key: Key, work: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """The result of `work`, or of the try that another caller started. Raises what the work raises."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(work())
            task.add_done_callback(lambda done: self._end(key, done))
        # One caller that gives up must not take the result from the others.
        return await asyncio.shield(task)

    def part(self, key: Key) -> None:
        """From here on callers get a try of their own: what is under way may miss what they must see."""
        self._under_way.pop(key, None)

    def _end(self, key: Key, task: Awaitable[Value]) -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]
