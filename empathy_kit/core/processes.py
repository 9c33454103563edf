"""Several processes that train one model: each computes its share of every batch, and all take the same step."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from empathy_kit.core.snapshot import pack, unpack
from empathy_kit.errors import KitError

ANSWER = 3.0  # seconds that a living process has to answer when another has failed
_POLL = 0.05


class Lost(KitError):  # noqa: N818 - a KitError like any other
    """Another process of the run has ended or does not answer; the message names it."""


class Processes:
    """The processes of one run, and what they exchange. Alone, which is the default, a process exchanges nothing.

    All have the whole data and draw the same batches. Gradients are summed by hand after the backward pass, rather than by
    DistributedDataParallel: it averages, so that shares of unequal size would count wrongly, and it expects every process to
    use every parameter, which a task without a label in a share does not.
    """

    def __init__(
        self,
        rank: int = 0,
        count: int = 1,
        store: Any = None,
        device: torch.device | str = "cpu",
        place: tuple[int, int] = (0, 0),
    ) -> None:
        """Join the others; the process group has been made.

        Args:
            rank: this process, from 0. The first one writes and prints.
            count: how many there are.
            store: torch's key-value store that they share; None for one process.
            device: where to exchange tensors.
            place: number of the machine, and of the process on it.
        """
        self.rank, self.count, self.device, self.place = rank, count, torch.device(device), place
        self.asked: Callable[[], bool] = lambda: False  # whether this process is asked to stop
        self.stopping = False  # whether any was before the last step
        self._store = store
        self._end = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        if store is not None:
            store.set(f"name/{rank}", f"{socket.gethostname()}, pid {os.getpid()}")
            self._watcher.start()

    def close(self) -> None:
        """Stop answering to the others."""
        self._end.set()  # a thread that is in the store's code while Python ends would crash it
        if self._watcher.is_alive():
            self._watcher.join()

    def share(self, pairs: int) -> range:
        """Which pairs of a batch are this process's: every ``count``-th, for a batch is sorted by length. It may be empty."""
        return range(self.rank, pairs, self.count)

    def seed_step(self, seed: int, epoch: int, step: int) -> None:
        """Seed this step's random numbers, so that no two processes draw the same dropout masks.

        The first process keeps its own stream, which a checkpoint holds. The numbers of the others follow from the run's seed,
        the position and the rank: no checkpoint needs them, and another number of processes can continue it.
        """
        if self.rank:
            drawn = int.from_bytes(sha256(f"{seed} {epoch} {step} {self.rank}".encode()).digest()[:4])
            torch.manual_seed(drawn)
            np.random.seed(drawn)
            random.seed(drawn)

    def sum_gradients(self, parameters: Sequence[nn.Parameter], loss: Tensor | None) -> float | None:
        """Replace every gradient by its sum over the processes, and return the sum of the losses; None where none has a loss.

        A process without a loss takes part with zeros. What has no gradient in any process keeps none.

        Raises:
            Lost: another process has ended.
        """
        mine = [0.0 if loss is None else float(loss.detach()), self.asked(), loss is not None]
        marks = torch.tensor([*mine, *(each.grad is not None for each in parameters)], dtype=torch.float32)
        value, asked, losses, *known = self.sum(marks).tolist()
        self.stopping = asked > 0
        used = [each for each, processes in zip(parameters, known, strict=True) if processes]
        for kind in dict.fromkeys(each.dtype for each in used):
            alike = [each for each in used if each.dtype == kind]
            parts = [(torch.zeros_like(each) if each.grad is None else each.grad).flatten() for each in alike]
            summed = self.sum(torch.cat(parts))  # one call instead of one per parameter
            for each, part in zip(alike, torch.split(summed, [len(part) for part in parts]), strict=True):
                each.grad = part.view_as(each)
        return value if losses else None

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, with the same bits in each."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, values: Sequence[int]) -> list[int]:
        """The largest of each over all processes."""
        found: list[int] = self._reduced(torch.tensor(values, dtype=torch.int64), dist.ReduceOp.MAX).tolist()
        return found

    def _reduced(self, values: Tensor, how: Any) -> Tensor:
        if self.count == 1:
            return values
        moved = values.to(self.device)
        with self._named():
            dist.all_reduce(moved, how)
            return moved.to(values.device)

    def copied(self, state: Mapping[str, Any]) -> Any:
        """The first process's state, in every process; the states of the others are not read."""
        text = None
        if self.rank == 0:
            packed, tensors = pack(state)
            kinds = {name: (str(each.dtype).removeprefix("torch."), list(each.shape)) for name, each in tensors.items()}
            text = [packed, kinds]
        packed, kinds = self.told("state", text)
        if self.rank:
            tensors = {name: torch.empty(shape, dtype=getattr(torch, kind)) for name, (kind, shape) in kinds.items()}
        with self._named():
            for name in kinds:
                moved = tensors[name].to(self.device)
                if moved.numel():
                    dist.broadcast(moved, 0)
                tensors[name] = moved.cpu()
        return unpack(packed, tensors)

    def told(self, name: str, value: Any = None) -> Any:
        """The first process's value, which JSON can hold, in every process. Waits for it without limit: it may be computing."""
        if self._store is None:
            return value
        if self.rank == 0:
            self._tell(name, value)
            return value
        return self._awaited(name)

    @contextmanager
    def first_here(self, name: str) -> Iterator[None]:
        """One process of each machine does something before the others of that machine, which find its result on the disk."""
        machine, number = self.place
        if self.count > 1 and number:
            self._awaited(f"{name}/{machine}")
        yield
        if self.count > 1 and not number:
            self._tell(f"{name}/{machine}", True)

    def _tell(self, name: str, value: Any) -> None:
        assert self._store is not None
        with self._named():
            self._store.set(f"told/{name}", json.dumps(value))

    def _awaited(self, name: str) -> Any:
        assert self._store is not None
        with self._named():
            while not self._store.check([f"told/{name}"]):  # torch's own wait would not let a signal through
                time.sleep(_POLL)
            return json.loads(self._store.get(f"told/{name}"))

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn what torch raises where another process has ended into `Lost`."""
        try:
            yield
        except RuntimeError:
            gone = self._gone()
            if not gone:  # all are there: it is something else
                raise
            raise Lost(f"{', '.join(gone)}: ended, or does not answer; the other processes end too") from None

    def _gone(self) -> list[str]:
        """The processes that do not answer."""
        assert self._store is not None
        if threading.current_thread() is threading.main_thread():
            signal.signal(
                signal.SIGTERM, signal.SIG_IGN
            )  # torchrun sends it, and this process would end before it has named them
        try:
            self._store.set("alarm", "")
            # The others a little longer, so that the first process reports it, which knows where the run's state is.
            waited = time.monotonic() + ANSWER + min(self.rank, 1)
            silent = [rank for rank in range(self.count) if rank != self.rank]
            while silent and time.monotonic() < waited:
                time.sleep(_POLL)
                silent = [rank for rank in silent if not self._store.check([f"here/{rank}"])]
            return [f"rank {rank} of {self.count} ({self._store.get(f'name/{rank}').decode()})" for rank in silent]
        except RuntimeError:
            return ["torchrun, or the machine of the first process"]

    def _watch(self) -> None:
        """Answer when another process looks for those that have ended; this one may be waiting inside torch."""
        assert self._store is not None
        with suppress(RuntimeError):  # the store's machine is gone
            while not self._end.wait(10 * _POLL):
                if self._store.check(["alarm"]):
                    self._store.set(f"here/{self.rank}", "")
                    return
