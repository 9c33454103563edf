"""Speed and memory of focal loss: the kit's kernel, torch and the installed peers, in one run.

    pip install 'empathy-kit[peers]'
    python benchmarks/losses.py > benchmarks/results/losses.json

On a GPU, with empathy-kit[gpu] and, to include its cross-entropy, liger-kernel:

    python benchmarks/losses.py --device cuda > benchmarks/results/losses-gpu.json

Class weights, gamma 2, float32 (32768x131072, only on a GPU: bfloat16), one thread on a CPU; forward and backward of the mean.
Implementations take turns in each round, so that all run under the same conditions; figures are medians. Before timing, each must
match the formula's float64 value and gradient. Gigabytes count one read of the logits forward, and one read and one write
backward, whatever memory traffic an implementation really has.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import click
import torch
from machine import machine
from peers import NO_FOCAL, ON_CUDA, OURS, OVERWRITING, SAME, Implementation, cross_entropy, eager, installed
from torch import Tensor

from empathy_kit.core import kernels
from empathy_kit.core.losses.formula import reference

SHAPES = {"32x3": (32, 3), "4096x3": (4096, 3), "1Mx3": (1 << 20, 3), "8192x32k": (8192, 32_768)}
ON_A_GPU = {**SHAPES, "32768x131072": (32_768, 131_072)}  # the last in bfloat16: 8.6 GB
GAMMA = 2.0
PATIENCE = 20.0  # seconds per step


def everybody(device: str = "cpu") -> dict[str, Implementation]:
    """All implementations by name, the kit's own first."""
    compiled: Any = torch.compile(eager)
    ours = {**OURS, **(ON_CUDA if device == "cuda" else {})}
    return {**ours, "eager, compiled": compiled, "F.cross_entropy": cross_entropy, **installed(device)}


def batch(shape: str, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Logits as of a partly trained model, targets with one rare class, and class weights."""
    rows, classes = ON_A_GPU[shape]
    generator = torch.Generator(device).manual_seed(0)
    dtype = torch.float32 if shape in SHAPES else torch.bfloat16
    logits = torch.empty(rows, classes, device=device, dtype=dtype).normal_(0, 3, generator=generator).requires_grad_()
    target = torch.randint(classes, (rows,), generator=generator, device=device)
    return logits, target, torch.linspace(0.5, 3, classes, device=device)


def step(implementation: Implementation, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Forward and backward."""
    (gradient,) = torch.autograd.grad(implementation(logits, target, GAMMA, weight), logits)
    return gradient


def assert_right(name: str, implementation: Implementation, device: str = "cpu") -> None:
    """Check value and gradient: the speed of a wrong loss is no result."""
    if name in NO_FOCAL:
        return
    logits, target, weight = batch("4096x3", device)
    exact = logits.detach().double().requires_grad_()
    expected = reference(exact, target, GAMMA, weight.double()).mean()
    (slope,) = torch.autograd.grad(expected, exact)
    found = implementation(logits, target, GAMMA, weight)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0, msg=f"{name}: another value")
    torch.testing.assert_close(step(implementation, logits, target, weight).double(), slope, rtol=1e-3, atol=1e-9, msg=name)


def seconds(action: Callable[[], object], calls: int, device: str = "cpu") -> float:
    """Seconds per call, the mean of several consecutive calls."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        action()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


def timed(shape: str, rounds: int, device: str = "cpu") -> list[dict[str, Any]]:
    """One row per implementation."""
    logits, target, weight = batch(shape, device)
    size = logits.numel() * logits.element_size()
    into = torch.empty_like(logits)
    actions: dict[str, Callable[[], object]] = {"copy of the logits": lambda: into.copy_(logits.detach())}
    for name, implementation in everybody(device).items():
        own = logits.detach().clone().requires_grad_() if name in OVERWRITING else logits
        actions[name] = partial(step, implementation, own, target, weight)
    first: dict[str, float] = {}
    for name in list(actions):  # the warm-up
        try:
            first[name] = seconds(actions[name], 1, device)
        except torch.cuda.OutOfMemoryError:
            print(f"{shape}, {name}: the GPU's memory does not suffice", file=sys.stderr)
            del actions[name]
    calls = {
        name: max(1, min(300, int(0.05 / seconds(action, 1, device))))
        for name, action in actions.items()
        if first[name] < PATIENCE
    }
    # Slow calls are timed only once: the warm-up makes no visible difference there.
    taken: dict[str, list[float]] = {name: [] if name in calls else [first[name]] for name in actions}
    for _ in range(rounds):
        for name in calls:
            taken[name].append(seconds(actions[name], calls[name], device))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    return [
        {
            "shape": shape,
            "dtype": str(logits.dtype).removeprefix("torch."),
            "implementation": name,
            "milliseconds": median * 1e3,
            "fastest": min(taken[name]) * 1e3,
            "of_eager": median / medians["eager"] if "eager" in medians else None,
            "rows_per_second": None if name.startswith("copy") else len(logits) / median,
            "gigabytes_per_second": (2 if name.startswith("copy") else 3) * size / median / 1e9,
        }
        for name, median in medians.items()
    ]


def memory(shape: str, name: str) -> float:
    """Peak memory of a step as multiples of the logits' size, without the logits; measured by the system in a new process."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        implementation = everybody()[name]
        small = batch("4096x3")
        step(implementation, *small)
        logits, target, weight = batch(shape)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        step(implementation, logits, target, weight)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        unit = 1 if sys.platform == "darwin" else 1024
        os.write(write, json.dumps((peak - before) * unit / (logits.numel() * logits.element_size())).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as pipe:
        found: float = json.loads(pipe.read())
    return found


def memory_on_a_gpu(shape: str, implementation: Implementation) -> float | None:
    """The same on a GPU, measured by its allocator; None where it does not fit."""
    logits, target, weight = batch(shape, "cuda")
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    try:
        step(implementation, logits, target, weight)
    except torch.cuda.OutOfMemoryError:
        return None
    return (torch.cuda.max_memory_allocated() - before) / (logits.numel() * logits.element_size())


@click.command()
@click.option("--rounds", default=15, show_default=True)
@click.option("--shape", "shapes", multiple=True, type=click.Choice(tuple(ON_A_GPU)), help="[all]")
@click.option("--device", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True)
def main(rounds: int, shapes: tuple[str, ...], device: str) -> None:
    """Print the tables as JSON."""
    shapes = shapes or tuple(SHAPES if device == "cpu" else ON_A_GPU)
    if device == "cpu" and set(shapes) - set(SHAPES):
        raise click.ClickException("32768x131072 is for a GPU alone")
    if device == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("--device cuda: torch finds no GPU")
    peaks: dict[str, dict[str, float | None]] = {}
    for shape in ("1Mx3", "8192x32k", "32768x131072"):
        if shape in shapes:  # before this process has threads, which do not survive a fork
            names = ["fused", "closed form", "eager", "F.cross_entropy", *installed(device)]
            names = [name for name in names if shape == "1Mx3" or name not in SAME]  # theirs took 10 GB and more there
            ways = everybody(device)
            peaks[shape] = {
                name: memory(shape, name) if device == "cpu" else memory_on_a_gpu(shape, ways[name]) for name in names
            }
            print(shape, peaks[shape], file=sys.stderr)
    torch.set_num_threads(1)
    for name, implementation in everybody(device).items():
        assert_right(name, implementation, device)
    rows = []
    for shape in shapes:
        found = timed(shape, rounds if shape in ("32x3", "4096x3", "1Mx3") else max(2, rounds // 3), device)
        print(*found, sep="\n", file=sys.stderr)
        rows += found
    content = {
        "what": "forward and backward of weighted focal loss, gamma 2, one CPU thread; medians of rounds that take turns",
        "kernel": kernels.status(torch.device(device)),
        "rounds": rounds,
        "machine": machine(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "rows": rows,
        "peak_memory_beyond_the_logits": peaks,
    }
    print(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
