"""The Triton kernels: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from exactness import GAMMAS, allowed_error, exact, hard_rows, value_and_gradient
from torch import Tensor, nn

from empathy_kit.core import kernels
from empathy_kit.core.losses.focal import FocalLoss, focal, focal_heads
from empathy_kit.core.losses.formula import reference
from empathy_kit.core.objective import Objective

triton = pytest.importorskip("triton", reason="the gpu extra is not installed", exc_type=ImportError)
from empathy_kit.core.kernels import gpu  # noqa: E402

ON_GPU = torch.cuda.is_available()  # else in the interpreter: see conftest.py
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
HALVES = (torch.bfloat16, torch.float16)

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # the interpreter's numpy, on purpose


@pytest.fixture(autouse=True)
def nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter cuts float32 to bfloat16; a GPU rounds it to the nearest, which the machine code below is held to."""
    if ON_GPU:
        return
    from triton.runtime import interpreter

    whole = interpreter._convert_float

    def convert(data: Any, from_: Any, to: Any, rounding: Any) -> Any:
        if str(from_) == "fp32" and str(to) == "bf16":
            rounded = torch.from_numpy(np.array(data, dtype=np.float32)).to(torch.bfloat16)
            return rounded.view(torch.uint16).numpy().reshape(np.shape(data))
        return whole(data, from_, to, rounding)

    monkeypatch.setattr(interpreter, "_convert_float", convert)
    # Of a number and NaN a GPU takes the number; the interpreter of triton 3.7, which torch 2.13 brings for CUDA, takes NaN.
    for name, choose in (("create_minnumf", np.fmin), ("create_maxnumf", np.fmax)):
        chosen = lambda self, one, other, choose=choose: self.binary_op(one, other, choose)  # noqa: E731
        monkeypatch.setattr(interpreter.InterpreterBuilder, name, chosen)


@pytest.fixture(autouse=True)
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU would choose by itself, on whatever device the tests have."""
    monkeypatch.setattr(kernels, "find", lambda device: gpu.Triton())


def few_rows(classes: int) -> Tensor:
    """The hard ones; the interpreter takes milliseconds for a program, which with many classes is a row."""
    rows = hard_rows(classes)
    if ON_GPU or classes <= 3:
        return rows
    return rows[::3] if classes <= gpu.FEW else rows[:: len(rows) // 12]


# Each layout with each kind of gamma, and each gamma with the layout of three classes. A GPU computes all in no time.
ALL = [(classes, gamma, ahead) for classes in (2, 3, 16, 17, 100) for gamma in GAMMAS for ahead in (False, True)]
CASES = [case for case in ALL if ON_GPU or case[1] == 0.5 or (not case[2] and (case[0] == 3 or case[1] in (0.0, 2.0)))]


@pytest.mark.parametrize(("classes", "gamma", "ahead"), CASES)
def test_float32_is_right_on_every_row(classes: int, gamma: float, ahead: bool) -> None:
    """Within (4 + gamma (4 + |z|)) 2^-24 of the float64 row, as on a CPU; the gradient made in either pass."""
    logits = few_rows(classes)
    target, weight = torch.arange(len(logits)) % classes, torch.linspace(0.25, 3, classes)
    check(logits, target, gamma, weight, ahead)


def check(logits: Tensor, target: Tensor, gamma: float, weight: Tensor, ahead: bool) -> None:
    given = target.to(DEVICE), weight.to(DEVICE)
    values, gradient = value_and_gradient(lambda z: focal(z, given[0], gamma, given[1], ahead=ahead), logits.to(DEVICE))
    values, gradient = values.cpu(), gradient.cpu()
    expected, slope = exact(logits, target, gamma, weight)
    allowed, smallest = allowed_error(logits, gamma), 1e-36  # what is subnormal is 0 on a GPU
    assert values.isfinite().all()
    assert gradient.isfinite().all()
    assert ((values.double() - expected).abs() <= allowed * expected.abs() + smallest).all()
    assert ((gradient.double() - slope).abs().amax(1) <= allowed * slope.abs().amax(1) + smallest).all()


@pytest.mark.parametrize("ahead", [False, True], ids=["recomputed", "made in the forward pass"])
def test_rows_that_no_register_holds_are_read_in_blocks(monkeypatch: pytest.MonkeyPatch, ahead: bool) -> None:
    for name, value in (("WIDE", 20), ("BLOCK", 32)):
        monkeypatch.setattr(gpu, name, value)
    logits = few_rows(72)[::2]
    logits[0, :64] = -torch.inf  # whole blocks that cannot be
    assert gpu.layout(logits) is gpu.many
    target = torch.arange(len(logits)) * 11 % 72
    target[0] = 70
    check(logits, target, 2.0, torch.linspace(0.25, 3, 72), ahead)
    check(logits, target, 0.5, torch.linspace(0.25, 3, 72), ahead)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("classes", [3, 40])
def test_half_precision_is_computed_in_float32_and_rounded_once(dtype: torch.dtype, classes: int) -> None:
    rows = 4000 if ON_GPU else 1000 if classes == 3 else 12
    logits = (3 * torch.randn(rows, classes, generator=torch.Generator().manual_seed(0))).to(dtype)
    target = torch.arange(rows) % classes
    values, gradient = value_and_gradient(lambda z: focal(z, target.to(DEVICE), 2.0), logits.to(DEVICE))
    assert values.dtype == gradient.dtype == dtype
    expected, slope = exact(logits, target, 2.0)
    for found, wanted in ((values, expected), (gradient, slope)):
        apart = (found.cpu().view(torch.int16).int() - wanted.to(dtype).view(torch.int16).int()).abs()
        assert (apart <= 1).double().mean() >= 0.999


@pytest.mark.parametrize("dtype", [torch.int8, torch.int32, torch.int64])
def test_labels_of_any_width_are_read_as_they_are(dtype: torch.dtype) -> None:
    logits, target = torch.randn(9, 3, device=DEVICE), torch.arange(9, device=DEVICE) % 3
    kernel, (gamma, weight) = gpu.Triton(), torch.stack([torch.full((1, 3), 2.0), torch.ones(1, 3)]).to(DEVICE)
    found, _ = kernel.forward(logits, target.to(dtype), gamma, weight, 2)
    torch.testing.assert_close(found, reference(logits, target))


@pytest.mark.parametrize("wrong", [-1, 3, 2**32, -(2**40)])
@pytest.mark.parametrize("classes", [3, 17])
def test_a_target_that_is_no_class_gives_its_row_no_number_and_reads_nothing_else(classes: int, wrong: int) -> None:
    logits = torch.randn(4, classes, device=DEVICE)
    target = torch.tensor([0, 1, wrong if wrong != 3 else classes, 2], device=DEVICE)
    values, gradient = value_and_gradient(lambda z: focal(z, target, 2.0), logits)
    assert values.isnan().tolist() == [False, False, True, False]
    assert gradient.isnan().all(1).tolist() == gradient.isnan().any(1).tolist() == [False, False, True, False]


def test_a_negative_weight_gives_its_classs_rows_no_number() -> None:
    for classes in (3, 17):
        logits, target = torch.randn(4, classes, device=DEVICE), torch.tensor([0, 1, 2, 0], device=DEVICE)
        for gamma, weight in ((2.0, torch.ones(classes)), (torch.ones(classes), torch.ones(classes))):
            (weight if isinstance(gamma, float) else gamma)[1] = -1.0
            power = gamma if isinstance(gamma, float) else gamma.to(DEVICE)
            assert focal(logits, target, power, weight.to(DEVICE)).isnan().tolist() == [False, True, False, False]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("classes", [3, 17])
def test_a_row_that_has_no_answer_gives_none(classes: int, bad: float) -> None:
    for gamma in (0.0, 0.5, 2.0):
        logits = torch.randn(6, classes, device=DEVICE)
        logits[[1, 3, 5], [0, 1, 2]] = bad
        target = torch.ones(6, dtype=torch.int64, device=DEVICE)
        values, gradient = value_and_gradient(lambda z, y=target, g=gamma: focal(z, y, g), logits)  # type: ignore[misc]
        assert values.isnan().tolist() == [False, True] * 3
        assert gradient.isnan().any(1).tolist() == [False, True] * 3


def test_no_rows_launch_nothing() -> None:
    for classes in (3, 17):
        values, gradient = value_and_gradient(
            lambda z: focal(z, torch.empty(0, dtype=torch.int64, device=DEVICE), 2.0), torch.empty(0, classes, device=DEVICE)
        )
        assert values.shape == (0,)
        assert gradient.shape == (0, classes)


def test_three_heads_with_their_own_gammas_and_weights_are_one_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    launches = []
    monkeypatch.setattr(gpu.Triton, "_launch", counting(gpu.Triton._launch, launches))
    logits = torch.randn(50, 3, 3, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(0)).requires_grad_()
    target = torch.arange(150, device=DEVICE).reshape(50, 3) % 3
    gammas, weights = [0.0, 2.0, 3.5], [None, torch.tensor([0.5, 1.0, 4.0], device=DEVICE), None]
    values = focal_heads(logits, target, gammas, weights)
    (gradient,) = torch.autograd.grad(values.mean(), logits, create_graph=False, retain_graph=True)
    assert len(launches) == 2  # forward, backward
    expected = torch.stack([reference(logits[:, at], target[:, at], gammas[at], weights[at]) for at in range(3)], 1)
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.mean(), logits, retain_graph=True)[0])
    curved = [torch.autograd.grad(v.sum(), logits, create_graph=True)[0].square().sum() for v in (values, expected)]
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in curved), rtol=1e-4, atol=1e-6)


def counting(function: Any, calls: list[int]) -> Any:
    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return function(*arguments)

    return counted


class Said:
    """The output for a batch, as far as the objective reads it."""

    def __init__(self, logits: dict[str, Tensor]) -> None:
        self.logits, self.span_logits = logits, None


class Wanted:
    def __init__(self, levels: Tensor) -> None:
        self.levels = levels
        self.complete = True  # no label is missing


class Rare(FocalLoss):
    """Somebody's weights."""

    def __init__(self) -> None:
        super().__init__(1.0, [1.0, 2.0, 9.0])


class HalfFocalLoss(FocalLoss):
    """Somebody's own."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return super().forward(logits, target) / 2


@pytest.mark.parametrize(
    ("loss", "launches"),
    [
        (FocalLoss(2.0, [1.0, 2.0, 3.0]), 1),
        (Rare(), 1),
        (HalfFocalLoss(2.0), 3),
        (lambda z, y: reference(z, y), 0),
    ],
    ids=["the kit's", "a subclass that only weighs", "a subclass that computes, which is called", "another"],
)
def test_the_training_step_takes_one_launch_by_itself(loss: Any, launches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(gpu.Triton, "_launch", counting(gpu.Triton._launch, calls))
    names = ("ER", "EX", "IP")
    logits = {name: torch.randn(20, 3, device=DEVICE) for name in names}
    levels = torch.arange(60, device=DEVICE).reshape(20, 3) % 3
    criteria = dict.fromkeys(names, loss.to(DEVICE) if isinstance(loss, nn.Module) else loss)
    found = Objective(criteria)(Said(logits), Wanted(levels), torch.ones(20, 4, dtype=torch.bool, device=DEVICE))
    assert len(calls) == launches
    with kernels.fused("off"):
        apart = sum(criteria[name](logits[name], levels[:, at]).mean() for at, name in enumerate(names))
    torch.testing.assert_close(found, apart)


def test_a_triton_that_fails_is_reported_and_torch_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real search
    monkeypatch.setattr(kernels, "is_right", lambda kernel, device: 1 / 0)
    kernels.find.cache_clear()
    try:
        device = torch.device("cuda", 7)
        name = f"fused GPU kernels, triton {triton.__version__}"
        assert kernels.status(device) == f"closed form in torch, no fused kernel: {name}: ZeroDivisionError: division by zero"
    finally:
        kernels.find.cache_clear()
