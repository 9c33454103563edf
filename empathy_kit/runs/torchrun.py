"""The processes that torchrun has started, of which this is one: how they find each other, and which one speaks."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from empathy_kit.errors import KitError
from empathy_kit.runs.signals import held

if TYPE_CHECKING:
    from empathy_kit.core.processes import Processes

LONGEST = timedelta(minutes=5)
"""How long processes wait for each other in one exchange: as long as the first may be kept by a slow disk or terminal.

A process that ends is noticed at once, because its connections close. This is for one that hangs.
"""


SOONEST = timedelta(minutes=1)
"""How long they wait for each other at the start."""


def is_one_of_several() -> bool:
    """Whether torchrun has started more than this process."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def is_silent() -> bool:
    """Whether another process prints."""
    return is_one_of_several() and os.environ.get("RANK", "0") != "0"


@contextmanager
def joined(choice: Literal["auto", "cpu"]) -> Iterator[Processes | None]:
    """The processes of this run, connected for as long as the context lasts; None where this is the only one.

    Args:
        choice: where to compute, as for `find_device`.

    Raises:
        KitError: the environment is not torchrun's, no other process answers, or there are fewer GPUs than processes.
    """
    if not is_one_of_several():
        yield None
        return
    import torch
    import torch.distributed as dist

    from empathy_kit.core.precision import find_device
    from empathy_kit.core.processes import Processes

    rank, count, machine, number = (_number(name) for name in ("RANK", "WORLD_SIZE", "GROUP_RANK", "LOCAL_RANK"))
    device = find_device(choice)
    if device.type != "cpu":
        found = torch.accelerator.device_count()
        if number >= found:
            raise KitError(
                f"torchrun: {found} GPUs found, expected one per process; use --nproc-per-node {found}, or --device cpu"
            )
        torch.accelerator.set_device_index(number)
    try:
        store = _store()
        backend = dist.get_default_backend_for_device(device)
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=LONGEST)
    except (RuntimeError, ValueError) as error:  # torch's own, of which the first line says what and the others where
        given = " ".join(f"{name}={os.environ.get(name, '')}" for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"))
        raise KitError(
            f"{given} in the environment, but no other process answers ({str(error).strip().partition(chr(10))[0]}); "
            "start with torchrun, or unset WORLD_SIZE"
        ) from None
    processes = Processes(rank, count, dist.PrefixStore("run", store), device, (machine, number))  # type: ignore[attr-defined]
    try:
        yield processes
        processes.told("end")  # the first is the last to be done, and who leaves before looks as if it had died
        dist.destroy_process_group()
    finally:
        processes.close()


def _number(name: str) -> int:
    try:
        return int(os.environ[name])
    except (KeyError, ValueError):
        count = os.environ["WORLD_SIZE"]
        raise KitError(f"WORLD_SIZE={count} in the environment without {name}: start with torchrun, or unset it") from None


@functools.cache
def _store() -> Any:
    import torch.distributed as dist

    store, _, _ = next(dist.rendezvous("env://", timeout=SOONEST))  # type: ignore[attr-defined]
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun may keep its store where it starts the processes again
    return dist.PrefixStore(f"empathy-kit/{again}", store)  # type: ignore[attr-defined]


def is_first_to_report() -> bool:
    """Whether this process is to print why it ends: of several, the first that asks, for most faults are every process's."""
    if not is_one_of_several() or not _is_answered():
        return True
    try:
        return bool(_store().add("reports", 1) == 1)
    except (ImportError, RuntimeError, ValueError):  # there is no torch, or no torchrun
        return True


def _is_answered() -> bool:
    """Whether anybody listens where torchrun's store is: where torchrun has ended, torch would wait for it for a minute."""
    with suppress(OSError, OverflowError, KeyError, ValueError):
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        with socket.create_connection(place, timeout=1):
            return True
    return False


def stopped_together(events: Iterator[Any], processes: Processes) -> Generator[Any, None, None]:
    """The events of training. A signal to any process is held until all have done the same step, and stops them all.

    Otherwise one could leave while another waits for it within a step, whose state could then not be kept.
    """
    if processes.count == 1:
        yield from events
        return
    with held() as came:
        processes.asked = lambda: bool(came)
        try:
            for event in events:
                yield event
                if processes.stopping:
                    break
        except KitError:
            came.clear()  # torchrun has sent it because a process has ended; why is more than that it was sent
            raise
    if processes.stopping:  # where a signal came to this process, it was handled at the end of the context
        raise KeyboardInterrupt
