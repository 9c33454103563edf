"""SIGINT and SIGTERM that wait until the work at hand is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held() -> Iterator[list[tuple[int, FrameType | None]]]:
    """Handle a signal that arrives meanwhile at the context's end, as it would have been handled at once.

    A second SIGINT is handled at once: whoever presses Ctrl-C twice does not want to wait. Only the main thread has signals.
    Gives the signals that have arrived; those that are removed are not handled.
    """
    came: list[tuple[int, FrameType | None]] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return

    def keep(number: int, frame: FrameType | None) -> None:
        again = number == signal.SIGINT and any(known == number for known, _ in came)
        came.append((number, frame))
        if again:
            _handle(before[number], number, frame)

    # What is ignored stays ignored, and a handler that was not set from Python (None) could not be put back.
    before: dict[int, Any] = {
        number: signal.getsignal(number) for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    for number in before:
        signal.signal(number, keep)
    try:
        yield came
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is keep:  # another was set meanwhile, which is to stay
                signal.signal(number, handler)
        for number, frame in came[:1]:
            _handle(before[number], number, frame)


def _handle(handler: Callable[[int, FrameType | None], Any] | signal.Handlers, number: int, frame: FrameType | None) -> None:
    if callable(handler) and not isinstance(handler, signal.Handlers):
        handler(number, frame)
    else:  # the system's own way, which ends the process
        signal.signal(number, handler)
        signal.raise_signal(number)
