"""Requests that wait -> small batches through one model, oldest first; nothing is computed that nobody waits for."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from empathy_kit.data.cells import MAX_CELL
from empathy_kit.inference.prediction import Prediction

Posts = tuple[str, str]
Predict = Callable[[list[Posts]], Sequence[Prediction]]
LONGEST_BATCH = 0.15  # seconds
FEWEST = 4  # short pairs: below it a batch costs more per pair
NEWS = 0.2  # how much the last batch counts in the speed
# Work is counted in characters that the model reads, because a long pair takes a batch longer than a short one. How much the rest
# counts, and the first guess, are estimates; the speed is then measured in the same units, batch by batch.
PAIR = 400  # that a pair takes before its first character
CUT = 50  # characters beyond what the model reads that take as long as one that it reads: they are tokenized, and cut off
GUESS = 40_000.0  # characters per second, before the first batch was timed
MOST_PAIRS_WAITING = 4096  # whatever the speed and the longest wait: what waits is in memory
MOST_CHARACTERS_WAITING = 2**24


class Busy(Exception):  # noqa: N818 - it is an answer, not a fault
    """Too many pairs wait already."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds)
        self.seconds = seconds  # until there is likely to be room, at least 1


class Late(Exception):  # noqa: N818
    """No answer before the deadline."""


class Failed(Exception):  # noqa: N818
    """The model failed on a pair. Of its error only the kind and the place are kept: the message may repeat a post."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.kind = type(error).__name__
        self.__traceback__ = error.__traceback__


@dataclass(eq=False)
class _Waiting:
    posts: Posts = field(repr=False)
    answer: asyncio.Future[Prediction]
    work: int

    @property
    def characters(self) -> int:
        return sum(map(len, self.posts))


class _Queue:
    """Pairs in the order of their arrival, and how much they are together."""

    def __init__(self) -> None:
        self._pairs: dict[_Waiting, None] = {}  # ordered, and what nobody waits for is taken out of its middle
        self.work = 0
        self.characters = 0

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, each: _Waiting) -> None:
        """Put a pair last."""
        self._pairs[each] = None
        self.work += each.work
        self.characters += each.characters

    def drop(self, each: _Waiting) -> None:
        """Take a pair out, if it still waits."""
        if each in self._pairs:
            del self._pairs[each]
            self.work -= each.work
            self.characters -= each.characters

    def take(self, pairs: int, work: float) -> list[_Waiting]:
        """Take out the oldest: so many pairs at most, and the first of them that make up so much work."""
        taken: list[_Waiting] = []
        for each in self._pairs:
            if len(taken) == pairs or sum(one.work for one in taken) >= work:
                break
            taken.append(each)
        for each in taken:
            self.drop(each)
        return taken


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
        reads: int = MAX_CELL,
        seen: Callable[[int, float], object] | None = None,
    ) -> None:
        """Nothing runs before `work`.

        Args:
            predict: the model; called in threads of its own.
            longest_wait: seconds that the pairs before a request may need, as the last batches went. It bounds what is waited for
                on a fast machine as on a slow one, and where none wait every request is accepted.
            size: pairs in one batch at most.
            workers: batches that are computed at once.
            reads: about how many characters of a post the model reads; what is beyond is cut off.
            seen: is told the pairs and the seconds of each batch.
        """
        self._predict, self._longest_wait, self._size, self._workers, self._seen = predict, longest_wait, size, workers, seen
        self._reads = reads
        self._queue = _Queue()
        self._arrived = asyncio.Event()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="empathy-kit-model")
        self._speed = GUESS

    @property
    def waiting(self) -> int:
        """Pairs that wait, without those that are being computed."""
        return len(self._queue)

    @property
    def _quick(self) -> float:
        """Work that one worker does in `LONGEST_BATCH`: on a slow machine a large batch would keep the next one waiting."""
        return max(FEWEST * PAIR, LONGEST_BATCH * self._speed / self._workers)

    async def predict(self, pairs: Sequence[Posts], *, deadline: float) -> list[Prediction]:
        """Predict some pairs together with those of others.

        Args:
            pairs: (seeker post, response post) each; checked already.
            deadline: seconds from now.

        Raises:
            Busy: too many wait.
            Late: the deadline came first.
            Failed: the model failed on one of the pairs.
        """
        wait = self._queue.work / self._speed
        full = len(self._queue) >= MOST_PAIRS_WAITING or self._queue.characters >= MOST_CHARACTERS_WAITING
        if wait > self._longest_wait or full:
            raise Busy(max(1, math.ceil(wait)))
        loop = asyncio.get_running_loop()
        mine = [_Waiting(posts, loop.create_future(), self._work_of(posts)) for posts in pairs]
        for each in mine:
            self._queue.add(each)
        self._arrived.set()
        try:
            async with asyncio.timeout(deadline):
                return [await each.answer for each in mine]
        except TimeoutError:
            raise Late from None
        finally:
            for each in mine:
                self._queue.drop(each)
                if not each.answer.cancel() and not each.answer.cancelled():
                    each.answer.exception()  # asyncio would log that of a pair whose neighbour failed first

    def _work_of(self, posts: Posts) -> int:
        read = sum(min(len(post), self._reads) for post in posts)
        return PAIR + read + (sum(map(len, posts)) - read) // CUT

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
            share = min(self._size, math.ceil(len(self._queue) / self._workers))
            batch = self._queue.take(share, self._quick)
            if not batch:
                self._arrived.clear()
                continue
            started = time.perf_counter()
            await self._compute(loop, batch)
            seconds = time.perf_counter() - started
            self._speed += NEWS * (self._workers * sum(each.work for each in batch) / seconds - self._speed)
            if self._seen is not None:
                self._seen(len(batch), seconds)

    async def _compute(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting]) -> None:
        found = await loop.run_in_executor(self._threads, self._attempt, [each.posts for each in batch])
        if isinstance(found, list):
            for each, one in zip(batch, found, strict=True):
                if not each.answer.done():
                    each.answer.set_result(one)
        elif len(batch) > 1:  # one pair must not fail those of others
            for each in batch:
                if not each.answer.done():
                    await self._compute(loop, [each])
        elif not batch[0].answer.done():
            batch[0].answer.set_exception(found)

    def _attempt(self, posts: list[Posts]) -> list[Prediction] | Failed:
        """Predict, in a thread. A failure is returned: raised, one that is no `Exception` would end the worker or the loop."""
        try:
            return [found for _, found in zip(posts, self._predict(posts), strict=True)]
        except BaseException as error:  # of the model or its plugins: a panic of Rust code is no Exception
            return Failed(error)
