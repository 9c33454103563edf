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
LONGEST_BATCH = 0.15  # seconds
FEWEST = 4  # pairs: below it a batch costs more per pair
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
    """Pairs of many requests, predicted together in a few threads.

    While the model computes, what arrives waits and makes up the next batch, so a single request is never held up to wait for
    company.
    """

    def __init__(
        self,
        predict: Predict,
        *,
        longest_wait: float,
        size: int,
        workers: int = 1,
        seen: Callable[[int, float], object] | None = None,
    ) -> None:
        """Nothing runs before `work`.

        Args:
            predict: the model; called in threads of its own.
            longest_wait: seconds that the pairs before a request may need, as the last batches went. It bounds what is waited for
                on a fast machine as on a slow one, and where none wait every request is accepted.
            size: pairs in one batch at most.
            workers: batches that are computed at once.
            seen: is told the pairs and the seconds of each batch.
        """
        self._predict, self._longest_wait, self._size, self._workers, self._seen = predict, longest_wait, size, workers, seen
        self._queue: dict[_Waiting, None] = {}  # ordered, and what nobody waits for is taken out of its middle
        self._arrived = asyncio.Event()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="empathy-kit-model")
        self._speed = GUESS

    @property
    def waiting(self) -> int:
        """Pairs that wait, without those that are being computed."""
        return len(self._queue)

    @property
    def _quick(self) -> int:
        """Pairs that one worker computes in `LONGEST_BATCH`: on a slow machine a large batch would keep the next one waiting."""
        return max(FEWEST, int(LONGEST_BATCH * self._speed / self._workers))

    async def predict(self, pairs: Sequence[Posts], *, deadline: float) -> list[Prediction]:
        """Predict some pairs together with those of others.

        Args:
            pairs: (seeker post, response post) each; checked already.
            deadline: seconds from now.

        Raises:
            Busy: too many wait.
            Late: the deadline came first.
        """
        wait = len(self._queue) / self._speed
        if wait > self._longest_wait:
            raise Busy(max(1, math.ceil(wait)))
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
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._arrived.wait()
            share = min(self._size, math.ceil(len(self._queue) / self._workers), self._quick)
            batch = [each for _, each in zip(range(share), self._queue, strict=False)]
            for each in batch:
                del self._queue[each]
            if not batch:
                self._arrived.clear()
                continue
            started = time.perf_counter()
            await self._compute(loop, batch)
            seconds = time.perf_counter() - started
            self._speed += NEWS * (self._workers * len(batch) / seconds - self._speed)
            if self._seen is not None:
                self._seen(len(batch), seconds)

    async def _compute(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting]) -> None:
        posts = [each.posts for each in batch]
        outcome: Sequence[Any]
        try:
            outcome = await loop.run_in_executor(self._threads, self._predict, posts)
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
