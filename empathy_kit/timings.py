"""What `pytest --benchmark` adds to a project's own benchmarks: every installed loss, forward and backward, and the kit's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest

from empathy_kit.contracts import Loss, Task
from empathy_kit.options import options_of, resolve
from empathy_kit.plugins import Provided, load_registry

if TYPE_CHECKING:
    from torch import Tensor

SHAPES = {"32x3": (32, 3), "4096x3": (4096, 3), "262144x3": (262_144, 3)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread: what a loss costs, not how many cores the machine lends it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", load_registry().of("loss"), ids=lambda entry: entry.spec.name)
def test_forward_and_backward(benchmark: Any, loss: Provided, shape: str) -> None:
    """One value per item, their mean, and the gradient of the logits; float32, one thread."""
    import torch

    rows, classes = SHAPES[shape]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, classes, generator=generator).mul_(3).requires_grad_()
    target = torch.randint(classes, (rows,), generator=generator)
    counts = torch.bincount(target, minlength=classes).clamp(min=1)
    task = Task("ER", tuple(str(level) for level in range(classes)), tuple(counts.tolist()))
    owner = f"loss {loss.spec.name}"
    if any(option.required for option in options_of(loss.spec.build).values()):
        pytest.skip(f"{owner} has an option without a default")
    function = cast(Loss, loss.spec).build(task, **resolve(owner, loss.spec.build, {}))

    def step() -> Tensor:
        (gradient,) = torch.autograd.grad(function(logits, target).mean(), logits)
        return gradient

    benchmark.group = f"loss, {shape}, forward and backward"
    benchmark.extra_info.update(distribution=loss.distribution, version=loss.version, torch=torch.__version__)
    _assert_sound(step, owner)
    benchmark(step)


def _assert_sound(step: Callable[[], Tensor], owner: str) -> None:
    # A fast wrong loss is not a result.
    gradient = step()
    assert gradient.isfinite().all(), f"{owner}: its gradient is not finite"
    assert gradient.abs().max() > 0, f"{owner}: its gradient is zero"
