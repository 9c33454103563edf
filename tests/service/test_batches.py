"""Requests share batches, oldest first. Too many are refused, late ones are told, and what nobody waits for is not computed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from empathy_kit.inference.prediction import Prediction
from empathy_kit.service import batches as module
from empathy_kit.service.batches import Batches, Busy, Failed, Late, Posts


def predicted(posts: Posts) -> Prediction:
    return Prediction({}, seeker_truncated=False, response_truncated=posts[1].endswith("cut"))


class Panic(BaseException):
    """What a panic of Rust code is in Python."""


FAILURES: dict[str, type[BaseException]] = {
    "poison": ValueError,
    "panic": Panic,
    "exit": SystemExit,
    "stop": StopIteration,
    "cancel": asyncio.CancelledError,
}


class Gate:
    """A model that computes a batch when it is let through, and remembers what it was given."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.entered, self.open = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, posts: list[Posts]) -> list[Prediction]:
        self.batches.append([response for _, response in posts])
        self.entered.release()
        assert self.open.acquire(timeout=10)
        for _, response in posts:
            if response in FAILURES:
                raise FAILURES[response]("the post")
        return [predicted(each) for each in posts if each[1] != "lost"]


def within(
    test: Callable[[Batches, Gate], Awaitable[None]],
    *,
    longest_wait: float = 0.075,
    size: int = 4,
    workers: int = 1,
    reads: int = 100_000,
) -> None:
    """Run a test next to working batches."""

    async def both() -> None:
        gate = Gate()
        batches = Batches(gate, longest_wait=longest_wait, size=size, workers=workers, reads=reads)
        working = asyncio.create_task(batches.work())
        try:
            await asyncio.wait_for(test(batches, gate), 20)
        finally:
            for _ in range(50):
                gate.open.release()
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working

    asyncio.run(both())


def asked(batches: Batches, *responses: str, deadline: float = 10.0) -> asyncio.Task[list[Prediction]]:
    return asyncio.create_task(batches.predict([("", each) for each in responses], deadline=deadline))


async def entered(gate: Gate) -> None:
    await asyncio.to_thread(gate.entered.acquire, timeout=10)


def test_what_arrives_during_a_batch_makes_up_the_next_one_oldest_first() -> None:
    async def test(batches: Batches, gate: Gate) -> None:
        first = asked(batches, "a")
        await entered(gate)
        others = [asked(batches, "b", "c cut"), asked(batches, "d", "e"), asked(batches, "f")]
        await asyncio.sleep(0.01)
        assert batches.waiting == 5
        for _ in range(3):
            gate.open.release()
        await asyncio.gather(first, *others)
        assert gate.batches == [["a"], ["b", "c cut", "d", "e"], ["f"]]
        assert [each.response_truncated for each in others[0].result()] == [False, True]

    within(test)


def test_several_batches_are_computed_at_once_and_share_what_waits() -> None:
    async def test(batches: Batches, gate: Gate) -> None:
        first = asked(batches, "a")
        await entered(gate)
        second = asked(batches, "b", "c", "d")  # the other worker takes half of it, and leaves the rest to the first
        await entered(gate)
        await asyncio.sleep(0.01)
        assert sorted(map(len, gate.batches)) == [1, 2]
        assert batches.waiting == 1
        for _ in range(3):
            gate.open.release()
        await asyncio.gather(first, second)
        assert gate.batches == [["a"], ["b", "c"], ["d"]]

    within(test, workers=2)


def test_over_the_bound_a_request_is_refused_at_once_with_a_time() -> None:
    async def test(batches: Batches, gate: Gate) -> None:
        first = asked(batches, "a")
        await entered(gate)
        waiting = asked(batches, *"bcdefg")
        fits = asked(batches, *"hi")  # the six before it need .06 s at the first guess of 100 short pairs/s
        await asyncio.sleep(0.01)
        with pytest.raises(Busy) as refused:
            await batches.predict([("", "x")], deadline=10)  # eight need .08 s
        assert refused.value.seconds == 1
        assert batches.waiting == 8
        for _ in range(10):
            gate.open.release()
        await asyncio.gather(first, waiting, fits)
        assert all("x" not in batch for batch in gate.batches)

    within(test)


def test_a_request_of_many_pairs_is_taken_where_nobody_waits() -> None:
    async def test(batches: Batches, gate: Gate) -> None:
        for _ in range(10):
            gate.open.release()
        assert len(await batches.predict([("", str(at)) for at in range(20)], deadline=10)) == 20
        assert [len(batch) for batch in gate.batches] == [4] * 5

    within(test)


def test_a_late_request_is_told_and_its_pairs_are_not_computed() -> None:
    async def test(batches: Batches, gate: Gate) -> None:
        first = asked(batches, "a")
        await entered(gate)
        with pytest.raises(Late):
            await batches.predict([("", "late")], deadline=0.02)
        assert batches.waiting == 0
        after = asked(batches, "b")
        gate.open.release()
        gate.open.release()
        await asyncio.gather(first, after)
        assert gate.batches == [["a"], ["b"]]

    within(test)


def test_what_nobody_waits_for_is_dropped() -> None:
    async def test(batches: Batches, gate: Gate) -> None:
        first = asked(batches, "a")
        await entered(gate)
        left, stays = asked(batches, "left", "too"), asked(batches, "b")
        await asyncio.sleep(0.01)
        left.cancel()
        first.cancel()  # its pair is computed, and read by nobody
        await asyncio.gather(left, first, return_exceptions=True)
        gate.open.release()
        gate.open.release()
        await stays
        assert gate.batches == [["a"], ["b"]]

    within(test)


@pytest.mark.parametrize(
    ("poison", "kind"), [*((name, each.__name__) for name, each in FAILURES.items()), ("lost", "ValueError")]
)
def test_a_pair_that_the_model_fails_on_fails_alone(poison: str, kind: str) -> None:
    async def test(batches: Batches, gate: Gate) -> None:
        first = asked(batches, "a")
        await entered(gate)
        poisoned, well = asked(batches, "b", poison), asked(batches, "c")
        await asyncio.sleep(0.01)
        for _ in range(6):
            gate.open.release()
        assert len(await first) == len(await well) == 1
        with pytest.raises(Failed) as failed:
            await poisoned
        assert (failed.value.kind, str(failed.value)) == (kind, "")  # its message may be a post
        assert len(await batches.predict([("", "after")], deadline=10)) == 1

    within(test)


def test_pairs_whose_request_left_are_not_computed_one_by_one_after_a_batch_that_failed() -> None:
    async def test(batches: Batches, gate: Gate) -> None:
        poisoned, left, stays = asked(batches, "poison"), asked(batches, "left"), asked(batches, "b")
        await entered(gate)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        for _ in range(3):
            gate.open.release()
        await asyncio.gather(poisoned, stays, return_exceptions=True)
        assert gate.batches == [["poison", "left", "b"], ["poison"], ["b"]]

    within(test)


def test_a_long_pair_counts_as_many_short_ones() -> None:
    async def test(batches: Batches, gate: Gate) -> None:
        first = asked(batches, "a")
        await entered(gate)
        short = asked(batches, "b", "c")
        await asyncio.sleep(0.01)
        long = asked(batches, 6_000 * "d", 6_000 * "e")  # .34 s at the first guess, where four short ones need .04 s
        await asyncio.sleep(0.01)
        with pytest.raises(Busy):
            await batches.predict([("", "f")], deadline=10)
        for _ in range(5):
            gate.open.release()
        await asyncio.gather(first, short, long)
        assert [[each[0] for each in batch] for batch in gate.batches] == [["a"], ["b", "c", "d"], ["e"]]

    within(test, reads=6_000)


def test_what_the_model_cuts_off_counts_little() -> None:
    async def test(batches: Batches, gate: Gate) -> None:
        first = asked(batches, "a")
        await entered(gate)
        cut = asked(batches, 10_000 * "b")
        await asyncio.sleep(0.01)
        fits = asked(batches, "c")
        for _ in range(3):
            gate.open.release()
        await asyncio.gather(first, cut, fits)

    within(test, reads=200)


def test_a_long_batch_does_not_make_short_pairs_look_slow() -> None:
    def steady(posts: list[Posts]) -> list[Prediction]:  # 20,000 characters per second
        threading.Event().wait(sum(400 + len(response) for _, response in posts) / 20_000)
        return [predicted(each) for each in posts]

    async def test() -> None:
        batches = Batches(steady, longest_wait=0.33, size=4)
        working = asyncio.create_task(batches.work())
        for _ in range(8):
            await batches.predict([("", 1_500 * "a")], deadline=10)  # 10 pairs per second
        waiting = asked(batches, *map(str, range(10, 24)))
        await asyncio.sleep(0.01)
        await batches.predict([("", "b")], deadline=10)  # the ten before it need .2 s, but a second at 10 pairs per second
        await waiting
        working.cancel()

    asyncio.run(test())


@pytest.mark.parametrize(("bound", "most"), [("MOST_PAIRS_WAITING", 3), ("MOST_CHARACTERS_WAITING", 9)])
def test_what_waits_has_a_bound_however_long_it_may_take(bound: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, bound, most)

    async def test(batches: Batches, gate: Gate) -> None:
        first = asked(batches, "a")
        await entered(gate)
        waiting = [asked(batches, "bcd", "efg"), asked(batches, "hij")]
        await asyncio.sleep(0.01)
        with pytest.raises(Busy):
            await batches.predict([("", "k")], deadline=10)
        for task in waiting:
            task.cancel()  # which leaves its room to others
        await asyncio.gather(*waiting, return_exceptions=True)
        after = asked(batches, "l")
        gate.open.release()
        gate.open.release()
        await asyncio.gather(first, after)

    within(test, longest_wait=600)


def test_the_speed_of_past_batches_says_when_to_come_back() -> None:
    seen: list[tuple[int, float]] = []

    async def run(work: Callable[[Batches], Coroutine[Any, Any, None]]) -> None:
        batches = Batches(slow, longest_wait=1.5, size=2, seen=lambda pairs, seconds: seen.append((pairs, seconds)))
        working = asyncio.create_task(batches.work())
        await work(batches)
        working.cancel()

    def slow(posts: list[Posts]) -> list[Prediction]:
        threading.Event().wait(0.1 * len(posts))
        return [predicted(each) for each in posts]

    async def work(batches: Batches) -> None:
        for _ in range(8):
            await batches.predict([("", "a")], deadline=10)  # at 10 pairs/s
        waiting = asked(batches, *map(str, range(60)))
        await asyncio.sleep(0.05)
        with pytest.raises(Busy) as refused:
            await batches.predict([("", "h")], deadline=10)
        assert 2 <= refused.value.seconds <= 6  # 58 wait, at 25 pairs/s by now: from the guess of 100 it nears 10 step by step
        waiting.cancel()

    asyncio.run(run(work))
    assert seen[0][0] == 1
    assert seen[0][1] >= 0.1
