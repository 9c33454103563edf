"""Runs of several processes, as torchrun runs this file.

Usage: run_together.py ENCODER FOLDER. In the folder is ``begun.partial``, a run that one process has begun.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import torch.distributed as dist
from resume_world import Learnt, finish, with_plugins
from run_world import configuration

from empathy_kit.config import RunConfig
from empathy_kit.core.processes import Processes
from empathy_kit.runs.torchrun import joined
from empathy_kit.runs.train import run


def exact(encoder: Path) -> RunConfig:
    """Without dropout, whose masks differ between processes."""
    options = {"trunk.dropout": 0.0, "loss.gamma": 1.5}
    return configuration(encoder, loss="focal", rationale="predicted", epochs=2, freeze_layers=1, options=options)


def noisy(encoder: Path) -> RunConfig:
    """With dropout, and a loss that draws random numbers."""
    return configuration(encoder, loss="learnt", epochs=2)


def main(encoder: Path, out: Path) -> None:
    with joined("cpu") as joint, ExitStack() as stack:
        assert joint is not None

        def processes(name: str) -> Processes:
            """As those of a run of its own."""
            found = Processes(joint.rank, joint.count, dist.PrefixStore(name, joint._store), place=joint.place)
            stack.callback(found.close)
            return found

        registry = with_plugins()
        for name, config in (("exact", exact(encoder)), ("begun", exact(encoder)), ("whole", noisy(encoder))):
            events = finish(config, out / name, registry, processes=processes(name))
            assert not (joint.rank and events)
        if joint.rank == 1:  # in the third step; the first process, which keeps the state, gets no signal
            Learnt.interrupted_at = 3 + 2 * 3 + 2  # each loss has been called once before, to see what computes it
        try:
            list(run(noisy(encoder), registry, out / "stopped", processes=processes("stopped")))
        except KeyboardInterrupt:
            (out / f"interrupted-{joint.rank}").touch()
        Learnt.interrupted_at = -1
        if joint.rank == 0:
            shutil.copytree(out / "stopped.partial", out / "left.partial")
        finish(noisy(encoder), out / "stopped", registry, processes=processes("continued"))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
