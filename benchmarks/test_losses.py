"""`pytest --benchmark`: focal loss of the kit, torch and the installed peers, and the cost of a loss in a training step.

The committed figures are those of losses.py, where all take turns; these are for use during development.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from losses import GAMMA, ON_A_GPU, SHAPES, assert_right, batch, everybody, step
from peers import SAME
from torch import Tensor

from empathy_kit.config import RunConfig
from empathy_kit.core import kernels
from empathy_kit.core.batch import Examples, collate_targets, collate_texts
from empathy_kit.core.losses.focal import focal_heads
from empathy_kit.core.model import Model
from empathy_kit.core.objective import Objective
from empathy_kit.core.predictor import Predictor
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split
from empathy_kit.errors import KitError
from empathy_kit.plugins import load_registry
from empathy_kit.runs.build import build_model, build_objective, build_tasks, build_tokenization, open_encoder, read_posts
from empathy_kit.runs.choose import choose_plugins

SMALL = [name for name in SHAPES if name != "8192x32k"]  # that one takes minutes on a CPU: see losses.py
# Where a GPU is, it is timed too, and with its largest shapes.
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
IMPLEMENTATIONS = {device: everybody(device) for device in DEVICES}
CASES = [
    (device, name, shape)
    for device in DEVICES
    for shape in (SMALL if device == "cpu" else ON_A_GPU)
    for name in IMPLEMENTATIONS[device]
    if not (name in SAME and shape not in SMALL)  # theirs take the logits' size ten times over
]
torch._functorch.config.donated_buffer = False  # or a compiled graph could not be gone back through more than once


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread, to measure the cost of a loss and not the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def timed(benchmark: Any, group: str, action: Any, *arguments: Any, device: str = "cpu", **per_second: float) -> None:
    """Time a call in its group, and report rows, pairs or gigabytes per second."""
    benchmark.group = group if device == "cpu" else f"{group}, {device}"  # before timing, which records it

    def waited() -> None:
        action(*arguments)
        torch.cuda.synchronize()

    benchmark(*((waited,) if device == "cuda" else (action, *arguments)))
    if benchmark.stats:
        median = benchmark.stats.stats.median
        benchmark.extra_info.update({f"{name}_per_second": amount / median for name, amount in per_second.items()})


def traffic(logits: Tensor) -> dict[str, float]:
    """Rows, and gigabytes of one read of the logits forward and one read and one write backward."""
    return {"rows": len(logits), "gigabytes": 3 * logits.element_size() * logits.numel() / 1e9}


@pytest.mark.parametrize(("device", "name", "shape"), CASES)
def test_forward(benchmark: Any, device: str, name: str, shape: str) -> None:
    """The forward pass alone."""
    logits, target, weight = batch(shape, device)
    implementation = IMPLEMENTATIONS[device][name]
    assert_right(name, implementation, device)
    group = f"focal, {shape}, forward"
    timed(benchmark, group, implementation, logits.detach(), target, GAMMA, weight, device=device, rows=len(logits))


@pytest.mark.parametrize(("device", "name", "shape"), CASES)
def test_backward(benchmark: Any, device: str, name: str, shape: str) -> None:
    """The backward pass alone. The CPU's fused mean recomputes the gradient; others only scale one from the forward pass."""
    logits, target, weight = batch(shape, device)
    mean = IMPLEMENTATIONS[device][name](logits, target, GAMMA, weight)
    backward = partial(torch.autograd.grad, mean, logits, retain_graph=True)
    timed(benchmark, f"focal, {shape}, backward", backward, device=device, rows=len(logits))


@pytest.mark.parametrize(("device", "name", "shape"), CASES)
def test_forward_and_backward(benchmark: Any, device: str, name: str, shape: str) -> None:
    """Forward and backward, as in a training step."""
    arguments = batch(shape, device)
    implementation = IMPLEMENTATIONS[device][name]
    assert_right(name, implementation, device)
    group = f"focal, {shape}, forward and backward"
    timed(benchmark, group, step, implementation, *arguments, device=device, **traffic(arguments[0]))


class Nothing(torch.autograd.Function):
    """The cost of a Python function in autograd's graph, whatever it computes."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:  # noqa: ARG004 - autograd gives it
        """No loss."""
        return logits.new_empty(())

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> Tensor:  # noqa: ARG004
        """No gradient."""
        return up.new_empty(32, 3)


def test_nothing(benchmark: Any) -> None:
    """The lower bound for any loss that is a Python function in autograd's graph."""
    logits = batch("32x3")[0]
    timed(benchmark, "focal, 32x3, forward and backward", lambda: torch.autograd.grad(Nothing.apply(logits), logits))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(("device", "shape"), dict.fromkeys((device, shape) for device, _, shape in CASES))
def test_copy_of_the_logits(benchmark: Any, device: str, shape: str) -> None:
    """The memory bandwidth: one read and one write."""
    logits = batch(shape, device)[0].detach()
    into = torch.empty_like(logits)
    gigabytes = 2 * logits.element_size() * logits.numel() / 1e9
    timed(benchmark, f"focal, {shape}, forward and backward", into.copy_, logits, device=device, gigabytes=gigabytes)


def three_heads(choice: kernels.Choice) -> Tensor:
    """The model's three heads, each with its own gamma."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(32, 3, 3, generator=generator).requires_grad_()
    target = torch.randint(3, (32, 3), generator=generator)
    with kernels.fused(choice):
        (gradient,) = torch.autograd.grad(focal_heads(logits, target, [0.0, 2.0, 3.0], [None] * 3).mean(), logits)
    return gradient


@pytest.mark.parametrize("choice", ["auto", "off"])
def test_three_heads(benchmark: Any, choice: kernels.Choice) -> None:
    """32 pairs, three mechanisms, three levels."""
    torch.testing.assert_close(three_heads("auto"), three_heads("off"), rtol=1e-4, atol=1e-7)
    timed(benchmark, "focal, 3 heads x 3, 32 pairs, forward and backward", three_heads, choice, pairs=32)


class Small(NamedTuple):
    """The default model on the bundled corpus, with focal loss, and 32 of its pairs."""

    model: Model
    objective: Objective
    pad_id: int
    examples: Examples


@pytest.fixture(scope="module")
def small() -> Small:
    """Skips where the small encoder's weights are not installed."""
    config = RunConfig(loss="focal", device="cpu")
    try:
        encoder, tokenizer = open_encoder(config)
    except KitError as error:
        pytest.skip(str(error))
    corpus = load_corpus(config.data)
    plugins = choose_plugins(config, load_registry())
    tasks = build_tasks(corpus, make_split(corpus, config.split, 0), corpus.schema)
    tokenization = build_tokenization(config, tokenizer, encoder)
    model = build_model(config, plugins, tasks, encoder)
    examples, _ = read_posts(config, tokenization, corpus)
    return Small(model, build_objective(config, plugins, tasks, model), tokenization.pad_id, examples.take(range(32)))


@pytest.mark.parametrize("loss", ["sum of the logits", "closed form", "fused", "fused, encoder in bfloat16"])
def test_training_step(benchmark: Any, small: Small, loss: str) -> None:
    """32 pairs forward and backward, with focal loss and with almost no loss: the difference is the cost of the loss."""
    texts = collate_texts(small.examples.texts, small.pad_id)
    targets = collate_targets(small.examples.labels, texts.response.shape[1])
    small.model.train()
    small.objective.fused = "off" if loss == "closed form" else "auto"

    def train() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=loss.endswith("bfloat16")):
            output = small.model(texts)
        if loss == "sum of the logits":
            total = torch.stack([logits.sum() for logits in output.logits.values()]).sum()
        else:
            total = small.objective(output, targets, texts.response_mask)
        total.backward()

    timed(benchmark, "training step, 32 pairs", train, pairs=len(small.examples))


def test_inference(benchmark: Any, small: Small) -> None:
    """The same pairs, predicted."""
    predictor = Predictor(small.model, pad_id=small.pad_id)
    timed(benchmark, "inference, 32 pairs", lambda: list(predictor.predict(small.examples.texts)), pairs=len(small.examples))
