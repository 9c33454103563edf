"""What a check shows a plugin, what the plugin must leave as it found it, and ways to look at what it keeps."""

from __future__ import annotations

import inspect
import os
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from empathy_kit.contracts import Task

COUNTS = (60, 30, 10, 8, 4, 2, 1)
CLASSES = (2, 3, 7)
Part = TypeVar("Part", bound=nn.Module)


class Unjudged(Exception):  # noqa: N818 - not an error: the fault has its name elsewhere, or there is nothing to judge
    """A promise cannot be judged, and why."""


def task_of(classes: int, counts: tuple[int, ...] | None = None, name: str = "ER") -> Task:
    """A task with imbalanced labels."""
    return Task(name, tuple(f"label {label}" for label in range(classes)), counts or COUNTS[:classes])


TASKS = (task_of(3), task_of(2, name="warmth"), task_of(7, name="a-b_c"))
"""Tasks as a table of one's own may have them: any number of labels each."""


def seeded(seed: int = 0) -> torch.Generator:
    """The source of a check's random inputs: the global one is watched."""
    return torch.Generator().manual_seed(seed)


def near(one: Tensor, other: Tensor, tolerance: float = 1e-5) -> bool:
    """Same shape, and equal up to the tolerance times the largest value."""
    if one.shape != other.shape:
        return False
    scale = max(1.0, float(other.detach().abs().max())) if other.numel() else 1.0
    return bool(((one - other).abs() <= tolerance * scale).all())


def called(build: Callable[[], Any], fault: Callable[[Any], str | None]) -> Any:
    """What a builder returns, for every check but the one that is about just that.

    Raises:
        Unjudged: the builder raises, or returns what it should not.
    """
    try:
        found = build()
    except Exception:  # whatever the plugin raises: `can_be_built` shows it
        raise Unjudged("can-be-built is broken") from None
    if fault(found) is not None:
        raise Unjudged("can-be-built is broken")
    return found


# What must stay as it is.


@contextmanager
def left_alone(*inputs: Tensor, training: bool = False, who: str = "it") -> Iterator[None]:
    """Assert that the block changes neither its inputs nor what all code shares; outside of training nothing may drop."""
    versions, copies, before = [each._version for each in inputs], [each.detach().clone() for each in inputs], _world()
    with nullcontext() if training else _Dropouts(off=False):
        yield
    for index, (tensor, copy, version) in enumerate(zip(inputs, copies, versions, strict=True)):
        same = torch.equal(tensor.detach(), copy) and tensor._version == version
        assert same, f"{who} writes into its input number {index + 1}"
    _assert_same(before)


def assert_draws_alone(when: str, run: Callable[[], object]) -> None:
    """Assert that what may draw from torch's random numbers sets neither them nor anything else that all code shares.

    Called for the first time, it may change what importing a library may change.
    """
    before = _world()
    run()
    _assert_same(before, but=(_DRAWN, *_OF_IMPORTS))
    ends = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        before = _world()
        run()
        _assert_same(before, but=(_DRAWN,))
        ends.append(torch.get_rng_state())
    assert not torch.equal(*ends), f"it sets torch's random numbers {when}, so that runs of several seeds draw the same"


_DRAWN = "torch's random numbers"
_OF_IMPORTS = ("the environment", "the filters of warnings")  # builders import inside, and libraries set these


def _assert_same(before: Mapping[str, Any], *, but: Sequence[str] = ()) -> None:
    for name, value in _world().items():
        if name not in but:
            same = torch.equal(before[name], value) if isinstance(value, Tensor) else before[name] == value
            assert same, f"it changes {name}"


def _world() -> dict[str, Any]:
    return {
        _DRAWN: torch.get_rng_state(),
        "numpy's random numbers": str(np.random.get_state()),
        "Python's random numbers": random.getstate(),
        **{name: read() for name, (read, _) in _SETTINGS.items()},
    }


def _flushes() -> bool:
    """Whether numbers too small for float32's usual form are taken for 0, which torch can set and not tell."""
    return not float(torch.tensor([1e-40], device="cpu") * 1.0)  # whatever the default device


def _default_device() -> torch.device | None:
    """As it was set, None where it was not: `torch.get_default_device` says cpu then, and to set cpu slows torch's every call.

    It also asks for a tensor there, which fails where there is no such device.
    """
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else context.device


def _set_environment(before: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(before)


def _set_cudnn(benchmark: bool, deterministic: bool, allow_tf32: bool) -> None:
    cudnn = torch.backends.cudnn
    cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32 = benchmark, deterministic, allow_tf32


def _set_warnings(before: list[Any]) -> None:
    warnings.filters[:] = before  # type: ignore[index]


# What all code shares: how it is read, and how it is put back.
_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "whether gradients are recorded": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's default device": (_default_device, torch.set_default_device),
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "whether algorithms are deterministic": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    "torch's number of threads": (torch.get_num_threads, torch.set_num_threads),
    "anomaly detection": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "the precision of float32 products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "whether oneDNN computes": (
        lambda: torch.backends.mkldnn.enabled,
        lambda value: setattr(torch.backends.mkldnn, "enabled", value),
    ),
    "whether the smallest numbers are taken for 0": (_flushes, torch.set_flush_denormal),
    "cuDNN's settings": (
        lambda: (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32),
        lambda values: _set_cudnn(*values),
    ),
    "the working folder": (os.getcwd, os.chdir),
    "the environment": (lambda: dict(os.environ), _set_environment),
    "the filters of warnings": (lambda: list(warnings.filters), _set_warnings),
}


@contextmanager
def restored() -> Iterator[None]:
    """Undo what a broken plugin does to the world, so that the next check meets a clean one."""
    rng, python, state = torch.get_rng_state(), random.getstate(), np.random.get_state()
    before = {name: read() for name, (read, _) in _SETTINGS.items()}
    torch.manual_seed(0)
    try:
        yield
    finally:
        torch.set_rng_state(rng)
        random.setstate(python)
        np.random.set_state(state)
        for name, (read, put_back) in _SETTINGS.items():
            if read() != before[name]:
                put_back(before[name])


# Dropout, which alone has a right to be random, and only in training.


class _Dropouts(TorchFunctionMode):
    """Turns functional dropout off, or names it where it drops."""

    def __init__(self, *, off: bool) -> None:
        super().__init__()
        self.off = off

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.scaled_dot_product_attention:
            dropout = args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)
            if self.off and dropout:
                args, kwargs = args[:4], {**kwargs, "dropout_p": 0.0}
            assert self.off or not dropout, (
                "attention drops outside of training; expected dropout_p=0.0 where self.training is False"
            )
        elif func in _FUNCTIONAL:
            given = inspect.signature(func).bind(*args, **kwargs)
            given.apply_defaults()
            if self.off:
                return args[0]
            assert not (given.arguments["training"] and given.arguments["p"]), (
                f"F.{func.__name__} drops outside of training; expected training=self.training, which is True by default"
            )
        return func(*args, **kwargs)


_FUNCTIONAL = (F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout)


def without_dropout(module: Part) -> Part:
    """In training mode, but without its dropout, so that two calls can be compared."""
    module.train()
    for part in module.modules():
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.eval()
        elif isinstance(part, nn.RNNBase | nn.MultiheadAttention):  # whose dropout is inside one operation
            part.dropout = 0.0
    forward = module.forward

    def quiet(*arguments: Any) -> Any:
        with _Dropouts(off=True):
            return forward(*arguments)

    module.forward = quiet
    return module


def twins(module: Part, count: int = 2) -> Iterator[Part]:
    """The module and copies of it, without dropout and each at another seed: what they give differs by randomness alone."""
    for seed, each in enumerate([module, *(deepcopy(module) for _ in range(count - 1))]):
        torch.manual_seed(seed)
        yield without_dropout(each)


def alike(*modules: Part) -> Iterator[Part]:
    """The modules at inference, each at the same seed: what they give differs by what they keep alone."""
    for each in modules:
        torch.manual_seed(0)
        yield each.eval()


def trained(value: Tensor) -> None:
    """The backward pass of what was computed, if anything of it can learn."""
    if value.requires_grad:
        torch.autograd.backward(value)


# What a module keeps.


def reload(trained: nn.Module, fresh: nn.Module) -> None:
    """Carry the state of one module to another as a checkpoint does: through safetensors, and nothing else."""
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


def assert_learns(module: nn.Module) -> None:
    """Assert that every parameter has a gradient from what was called backward on."""
    idle = [name for name, parameter in module.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert not idle, f"no gradient reaches {', '.join(idle)}"


def assert_apart(one: object, other: object) -> None:
    """Assert that two modules have no tensor in common."""
    if isinstance(one, nn.Module) and isinstance(other, nn.Module):
        held = {id(tensor) for tensor in (*one.parameters(), *one.buffers())}
        shared = [name for name, tensor in (*other.named_parameters(), *other.named_buffers()) if id(tensor) in held]
        assert not shared, f"built twice, both have the same {', '.join(shared)}: what one learns changes the other"


def same_seed_same_weights(build: Callable[[], object]) -> None:
    """Built twice after the same `torch.manual_seed`, it has the same weights; it sets no seed itself."""
    assert_draws_alone("while it is built", build)  # first, or what it sets once and for all would not be seen
    states: list[dict[str, Tensor]] = []
    for _ in range(2):
        torch.manual_seed(3)
        built = build()
        states.append(built.state_dict() if isinstance(built, nn.Module) else {})
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), f"{name} differs: it is drawn from another source than torch's seed"


def weighted(*parts: Tensor) -> Tensor:
    """A number that every value moves: not the plain sum, which a softmax or a centred output would make constant."""
    generator = seeded(4)
    values = [(part.float() * torch.randn(part.shape, generator=generator)).sum() for part in parts if part.numel()]
    return torch.stack(values).sum() if values else torch.zeros(())
