"""What a plugin must leave as it found it, and ways to look at what it keeps."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from empathy_kit.contracts import Task

COUNTS = (60, 30, 10, 8, 4, 2, 1)


class Unjudged(Exception):  # noqa: N818 - not an error: another check has the fault
    """A promise cannot be judged, because the one that this names is broken."""


def task_of(classes: int, counts: tuple[int, ...] | None = None) -> Task:
    """A mechanism with imbalanced levels."""
    return Task("ER", tuple(str(level) for level in range(classes)), counts or COUNTS[:classes])


def seeded(seed: int = 0) -> torch.Generator:
    """The source of a check's random inputs: the global one is watched."""
    return torch.Generator().manual_seed(seed)


@contextmanager
def left_alone(*inputs: Tensor) -> Iterator[None]:
    """Assert that the block changes neither its inputs nor what all code shares."""
    versions, copies, before = [each._version for each in inputs], [each.detach().clone() for each in inputs], _world()
    yield
    for index, (tensor, copy, version) in enumerate(zip(inputs, copies, versions, strict=True)):
        assert torch.equal(tensor.detach(), copy) and tensor._version == version, f"it writes into its input number {index + 1}"  # noqa: PT018
    for name, value in _world().items():
        same = torch.equal(before[name], value) if isinstance(value, Tensor) else before[name] == value
        assert same, f"it changes {name}"


def _world() -> dict[str, Any]:
    return {
        "torch's random numbers": torch.get_rng_state(),
        "numpy's random numbers": str(np.random.get_state()),
        "Python's random numbers": random.getstate(),
        "whether gradients are recorded": torch.is_grad_enabled(),
        "torch's default dtype": torch.get_default_dtype(),
        "whether algorithms are deterministic": torch.are_deterministic_algorithms_enabled(),
        "torch's number of threads": torch.get_num_threads(),
        "anomaly detection": torch.is_anomaly_enabled(),
    }


@contextmanager
def restored() -> Iterator[None]:
    """Undo what a broken plugin does to the world, so that the next check meets a clean one."""
    rng, python, state = torch.get_rng_state(), random.getstate(), np.random.get_state()
    grad, dtype, threads = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()
    deterministic, anomaly = torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled()
    torch.manual_seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(rng)
        random.setstate(python)
        np.random.set_state(state)
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic)
        torch.autograd.set_detect_anomaly(anomaly)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def reload(trained: nn.Module, fresh: nn.Module) -> None:
    """Carry the state of one module to another as a checkpoint does: through safetensors, and nothing beside it."""
    state = {name: tensor.clone().contiguous() for name, tensor in trained.state_dict().items()}
    fresh.load_state_dict(safetensors.torch.load(safetensors.torch.save(state)))


def learn(module: nn.Module, value: Tensor) -> None:
    """One step of gradient descent, so that a learnt state differs from a fresh one."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if parameters and value.requires_grad:
        gradients = torch.autograd.grad(value, parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter.sub_(0.1 * gradient)


def assert_registered(value: Tensor, module: object, *inputs: Tensor) -> None:
    """Assert that whatever has a gradient of this value is an input or a parameter that a checkpoint would hold."""
    known = {id(each) for each in inputs}
    if isinstance(module, nn.Module):
        known |= {id(parameter) for parameter in module.parameters()}
    seen, waiting = set(), [value.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            held = id(node.variable) in known
            assert held, "it learns a tensor that is no parameter of an nn.Module; a checkpoint would lose it"
        waiting += [parent for parent, _ in node.next_functions]


def without_dropout(module: nn.Module) -> nn.Module:
    """In training mode, but for the dropout, which has a right to be random."""
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.eval()
    return module


def near(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    """Same shape, and equal up to the tolerance times the largest value."""
    if one.shape != other.shape:
        return False
    scale = max(1.0, float(other.detach().abs().max())) if other.numel() else 1.0
    return bool(((one - other).abs() <= tolerance * scale).all())
