"""Faults and hostile input in numbers, from what benchmarks/torture and benchmarks/exactly_once.py have written."""

from __future__ import annotations

from typing import Any

from blocks.reading import measured, processor, table

ORDER = (
    "kill-run", "kill-compare", "kill-writing", "terminate", "interrupt", "flip", "damage", "full-disk", "clock", "read-only",
    "two-at-once", "tables", "settings", "plans", "run-folders", "pages", "encoder-folders", "interface",
)  # fmt: skip


def survived() -> str:
    """A row per experiment: how many trials, how many survived, what that means, and the command that repeats it."""
    rows = [_row(measured(f"torture/{name}")) for name in ORDER]
    header = ("what is done to it", "tried", "survived", "survived means", "again")
    return table(header, [*rows, _predict()])


def machines() -> str:
    """Where they were counted."""
    found = [measured(f"torture/{name}") for name in ORDER]
    kits = sorted({content["kit"] for content in found})
    where = sorted({f"{content['machine']['cores']} cores ({content['machine']['processor']})" for content in found})
    return (
        f"Counted with empathy-kit {', '.join(kits)} on {'; '.join(where)}. How each trial ended is in "
        "[benchmarks/results/torture](../benchmarks/results/torture)."
    )


def checkpoints() -> str:
    """What keeping a run's state costs, as a share of the time between two checkpoints."""
    found = measured("checkpoints")
    computed = found["processor_seconds"] / (found["machine"]["cores"] * 300)
    machine = found["machine"]
    return (
        f"A checkpoint of {found['config']['encoder']} has {found['bytes'] / 2**20:,.0f} MiB, and training waits "
        f"{found['training_waits_seconds']:.2f} s for it: {found['share_of_5_minutes']:.2%} of 5 minutes. With its hashes it "
        f"takes {found['processor_seconds']:.1f} s of processor time, {computed:.2%} of what the cores have in 5 minutes. An "
        f"epoch of the Reddit data would take {found['epoch_seconds']:.0f} s here, and the checkpoint at its end "
        f"{found['share_of_an_epoch']:.2%} of that ([how](../benchmarks/checkpoints.py), "
        f"[figures](../benchmarks/results/checkpoints.json)), on {machine['cores']} cores of an {processor(machine)}."
    )


def _row(content: Any) -> tuple[str, ...]:
    return (
        content["experiment"],
        f"{content['tried']:,}",
        f"{content['survived']:,}",
        content["survived_means"],
        f"`{content['command']}`",
    )


def _predict() -> tuple[str, ...]:
    found = measured("exactly-once")
    kept = found["kills"] - found["outputs_that_differ"]
    return (
        "SIGKILL of `predict`, at random moments and while it writes",
        f"{found['kills']:,}",
        f"{kept:,}",
        f"repeated until they are complete, {found['jobs_completed']} jobs end with the bytes of an undisturbed one",
        f"`python benchmarks/exactly_once.py MODEL --kills {found['kills']}`",
    )
