"""Requests that wait -> small batches through one model, oldest first; nothing is computed that nobody waits for."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from empathy_kit.inference.prediction import Prediction

Posts = tuple[str, str]
Predict = Callable[[list[Posts]], Sequence[Prediction]]
NEWS = 0.2  # how much the last batch counts in the speed
GUESS = 50.0  # pairs per second, before the first batch was timed


class Busy(Exception):  # noqa: N818 - it is an answer, not a fault
    """Too many pairs wait already."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds  # until there is likely to be room, at least 1


class Late(Exception):  # noqa: N818
    """No answer before the deadline."""


@dataclass(eq=False)
class _Waiting:
    posts: Posts = field(repr=False)
    answer: asyncio.Future[Prediction]


class Batches:
    """Pairs of many requests, predicted together in one thread.

    While the model computes a batch, what arrives waits and makes up the next one, so a single request is never held up to wait
    for company.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        longest_wait: float,
        size: int,
        seen: Callable[[int, float], object] | None = None,
    ) -> None:
        """Nothing runs before `work`.

        Args:
            predict: the model; called in one thread of its own.
            longest_wait: seconds that the pairs before a request may need, as the last batches went. It bounds what is waited for
                on a fast machine as on a slow one, and where none wait every request is accepted.
            size: pairs in one batch at most.
            seen: is told the pairs and the seconds of each batch.
        """
        self._predict, self._longest_wait, self._size, self._seen = predict, longest_wait, size, seen
        self._queue: dict[_Waiting, None] = {}  # ordered, and what nobody waits for is taken out of its middle
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="empathy-kit-model")
        self._speed = GUESS

    @property
    def waiting(self) -> int:
        """Pairs that wait, without those that are being computed."""
        return len(self._queue)

    async def predict(self, pairs: Sequence[Posts], *, deadline: float) -> list[Prediction]:
        """Predict some pairs together with those of others.

        Args:
            pairs: (seeker post, response post) each; checked already.
            deadline: seconds from now.

        Raises:
            Busy: too many wait.
            Late: the deadline came first.
        """
        if len(self._queue) / self._speed > self._longest_wait:
            raise Busy(max(1, math.ceil(len(self._queue) / self._speed)))
        loop = asyncio.get_running_loop()
        mine = [_Waiting(posts, loop.create_future()) for posts in pairs]
        self._queue.update(dict.fromkeys(mine))
        self._arrived.set()
        try:
            async with asyncio.timeout(deadline):
                return [await each.answer for each in mine]
        except TimeoutError:
            raise Late from None
        finally:
            for each in mine:
                self._queue.pop(each, None)
                if not each.answer.cancel() and not each.answer.cancelled():
                    each.answer.exception()  # asyncio would log that of a pair whose neighbour failed first

    async def work(self) -> None:
        """Compute batches until cancelled. What then still waits is never answered."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._arrived.wait()
                batch = [each for _, each in zip(range(self._size), self._queue, strict=False)]
                for each in batch:
                    del self._queue[each]
                if not batch:
                    self._arrived.clear()
                    continue
                started = time.perf_counter()
                await self._compute(loop, batch)
                seconds = time.perf_counter() - started
                self._speed += NEWS * (len(batch) / seconds - self._speed)
                if self._seen is not None:
                    self._seen(len(batch), seconds)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _compute(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting]) -> None:
        posts = [each.posts for each in batch]
        outcome: Sequence[Any]
        try:
            outcome = await loop.run_in_executor(self._thread, self._predict, posts)
        except Exception as error:  # of the model or its plugins
            if len(batch) == 1 and not batch[0].answer.done():
                batch[0].answer.set_exception(error)
            elif len(batch) > 1:  # one pair must not fail those of others
                for each in batch:
                    await self._compute(loop, [each])
            return
        for each, found in zip(batch, outcome, strict=True):
            if not each.answer.done():
                each.answer.set_result(found)
