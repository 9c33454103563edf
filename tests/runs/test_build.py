"""What does not fit is named with its provider before the training: every kind of plugin, and the environment."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from run_world import Said, configuration, flags
from torch import Tensor, nn

from empathy_kit import Encoded, Head, Injection, KitError, Loss, Rationale, Sampler, Trunk
from empathy_kit.contracts import Spec, Texts
from empathy_kit.core.heads import LinearHead
from empathy_kit.plugins import Kind, Provided, Registry, load_registry
from empathy_kit.runs.train import run


class Flat(nn.Module):
    """A trunk that pools a post's first token; its faults are its arguments."""

    def __init__(self, encoder: Any, injector: nn.Module, *, says: Any = 32, gives: str = "encoded") -> None:
        super().__init__()
        self.encoder, self.injector, self.width, self.gives = encoder, injector, says, gives

    def forward(self, texts: Texts, gold: Tensor | None = None) -> tuple[Any, Tensor | None]:
        states = self.encoder.response(texts)
        injection: Injection = self.injector(states, texts.response_mask, gold)
        if self.gives == "a tensor":
            return states, injection.span_logits
        pooled = states[:, :1] if self.gives == "a dimension more" else states[:, 0]
        encoded = Encoded(pooled, states, texts.response_mask)
        return encoded if self.gives == "no pair" else (encoded, injection.span_logits)  # type: ignore[return-value]


class Wrong(LinearHead):
    """A head whose outputs have other shapes than promised."""

    def __init__(self, width: int, what: str) -> None:
        super().__init__(width, 3)
        self.what = what

    def forward(self, encoded: Encoded) -> Any:
        logits = super().forward(encoded)
        return {"nothing": None, "flat": logits[:, 0], "wide": logits}[self.what]

    def probabilities(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1).repeat(1, 2) if self.what == "wide" else logits.softmax(-1)


class Own(LinearHead):
    """A head that says what its criterion is, or that it has none."""

    def __init__(self, width: int, criterion: object) -> None:
        super().__init__(width, 3)
        self.criterion = criterion


class TwoTasks(nn.Module):
    """An injector that predicts spans of two tasks, however many there are."""

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        return Injection(response[:, :0], mask[:, :0], response[..., :2].transpose(1, 2))


def attempt(folder: Path, kind: Kind, spec: Spec, encoder: Path) -> str:
    """The one line with which a run ends that uses this plugin."""
    registry = Registry((*load_registry().provided, Provided(kind, spec, "empathy-kit-bad", "0.1")))
    events = run(replace(configuration(encoder, **{kind: "bad"}), options={}), registry, folder / "run")
    with pytest.raises(KitError) as error:
        next(events)
    assert list(folder.iterdir()) == []
    (line,) = str(error.value).splitlines()
    return line


BAD: list[tuple[Kind, Spec, str]] = [
    (
        "trunk",
        Trunk("bad", lambda encoder, injector: Flat(encoder, injector, says=16)),
        "trunk bad of empathy-kit-bad 0.1: its width is 16, but its states for two pairs have shape (2, 32)",
    ),
    (
        "trunk",
        Trunk("bad", lambda encoder, injector: Flat(encoder, injector, says=None)),
        "trunk bad of empathy-kit-bad 0.1: width None found, expected an nn.Module with an integer attribute width",
    ),
    (
        "trunk",
        Trunk("bad", lambda encoder, injector: None),  # type: ignore[arg-type,return-value]
        "trunk bad of empathy-kit-bad 0.1: NoneType found, expected an nn.Module with an integer attribute width",
    ),
    (
        "trunk",
        Trunk("bad", lambda encoder, injector: Flat(encoder, injector, gives="a tensor")),
        "trunk bad of empathy-kit-bad 0.1: its output is a Tensor, expected an Encoded",
    ),
    (
        "trunk",
        Trunk("bad", lambda encoder, injector: Flat(encoder, injector, gives="a dimension more")),
        "trunk bad of empathy-kit-bad 0.1: its width is 32, but its states for two pairs have shape (2, 1, 32)",
    ),
    (
        "trunk",
        Trunk("bad", lambda encoder, injector: Flat(encoder, injector, gives="no pair")),
        "trunk bad of empathy-kit-bad 0.1: Encoded found as its output, expected an Encoded and span logits or None",
    ),
    (
        "rationale",
        Rationale("bad", lambda tasks, width: None),  # type: ignore[arg-type,return-value]
        "rationale bad of empathy-kit-bad 0.1: NoneType found, expected an nn.Module",
    ),
    (
        "rationale",
        Rationale("bad", lambda tasks, width: TwoTasks()),
        "rationale bad of empathy-kit-bad 0.1: span logits for two pairs: (2, 2, 2) found, expected (2, 3, 2)",
    ),
    (
        "head",
        Head("bad", lambda task, width: None),  # type: ignore[arg-type,return-value]
        "head bad of empathy-kit-bad 0.1: NoneType found, expected an nn.Module with a method probabilities",
    ),
    (
        "head",
        Head("bad", lambda task, width: Wrong(width, "nothing")),
        "head bad of empathy-kit-bad 0.1: logits of ER for two pairs: NoneType found, expected shape (2, K)",
    ),
    (
        "head",
        Head("bad", lambda task, width: Wrong(width, "flat")),
        "head bad of empathy-kit-bad 0.1: logits of ER for two pairs: (2,) found, expected shape (2, K)",
    ),
    (
        "head",
        Head("bad", lambda task, width: Wrong(width, "wide")),
        "head bad of empathy-kit-bad 0.1: probabilities of ER for two pairs: (2, 6) found, expected (2, 3)",
    ),
    (
        "head",
        Head("bad", lambda task, width: nn.Linear(width, 3)),
        "head bad of empathy-kit-bad 0.1: no method probabilities found, expected an nn.Module with a method probabilities",
    ),
    (
        "head",
        Head("bad", lambda task, width: Own(width, 5)),
        "head bad of empathy-kit-bad 0.1: criterion: int found, expected a function or nn.Module",
    ),
    (
        "loss",
        Loss("bad", lambda task: None),  # type: ignore[arg-type,return-value]
        "loss bad of empathy-kit-bad 0.1: NoneType found, expected a function or nn.Module",
    ),
    (
        "loss",
        Loss("bad", lambda task: 1 / 0),  # type: ignore[arg-type,return-value]
        "loss bad of empathy-kit-bad 0.1 cannot be built: ZeroDivisionError: division by zero; "
        "`empathy-kit plugins check bad` shows where",
    ),
    (
        "sampler",
        Sampler("bad", lambda tasks, labels: None),  # type: ignore[arg-type,return-value]
        "sampler bad of empathy-kit-bad 0.1: NoneType found, expected a function of a generator",
    ),
    (
        "sampler",
        Sampler("bad", lambda tasks, labels: lambda generator: torch.tensor([len(labels)])),
        "the sampler gave position 210, expected 0 to 209 (sampler bad is from empathy-kit-bad 0.1)",
    ),
    (
        "sampler",
        Sampler("bad", lambda tasks, labels: lambda generator: torch.empty(0, dtype=torch.int64)),
        "the sampler gave no pair, expected at least one (sampler bad is from empathy-kit-bad 0.1)",
    ),
]


@pytest.mark.parametrize(("kind", "spec", "line"), BAD, ids=[f"{kind}-{at}" for at, (kind, _, _) in enumerate(BAD)])
def test_a_plugin_that_does_not_fit_is_named_before_the_training(
    tiny_roberta: Path, tmp_path: Path, kind: Kind, spec: Spec, line: str
) -> None:
    assert attempt(tmp_path, kind, spec, tiny_roberta) == line


def test_to_see_whether_a_model_fits_draws_no_random_number(tiny_roberta: Path, tmp_path: Path) -> None:
    class Drawing(LinearHead):
        def forward(self, encoded: Encoded) -> Tensor:
            torch.rand(3)
            return super().forward(encoded)

    drawing = Provided("head", Head("drawing", lambda task, width: Drawing(width, 3)), "empathy-kit-drawing", "0.1")
    states = []
    for head in ("linear", "drawing"):
        events = run(configuration(tiny_roberta, head=head), Registry((*load_registry().provided, drawing)), tmp_path / head)
        next(events)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_to_see_whether_a_model_fits_asks_no_gpu_for_its_random_state(
    tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch asks all of them where none is named, and warns where there are two."""
    fork, asked = torch.random.fork_rng, []

    def watched(devices: Any = None) -> Any:
        asked.append(devices)
        return fork(devices)

    monkeypatch.setattr(torch.random, "fork_rng", watched)
    next(run(configuration(tiny_roberta), load_registry(), tmp_path / "run"))
    assert asked
    assert None not in asked


def test_a_trunk_of_a_plugin_is_trained_and_its_width_is_the_heads(tiny_roberta: Path, tmp_path: Path) -> None:
    own = Provided("trunk", Trunk("flat", lambda encoder, injector: Flat(encoder, injector)), "empathy-kit-flat", "0.1")
    config = replace(configuration(tiny_roberta, trunk="flat", rationale="tag"), options={})
    *_, finished = run(config, Registry((*load_registry().provided, own)), tmp_path / "run")
    assert finished.record.title == "ce + flat trunk + tag"
    assert finished.record.plugins["trunk"] == {"name": "flat", "distribution": "empathy-kit-flat", "version": "0.1"}
    assert finished.record.spans is not None


def test_a_head_whose_criterion_is_none_is_trained_by_the_runs_loss_and_called_so(tiny_roberta: Path, tmp_path: Path) -> None:
    own = Provided("head", Head("own", lambda task, width: Own(width, None)), "empathy-kit-own", "0.1")
    config = configuration(tiny_roberta, head="own", loss="focal")
    opened, *_, finished = run(config, Registry((*load_registry().provided, own)), tmp_path / "run")
    assert opened.warnings == ()  # type: ignore[union-attr]
    assert finished.record.title == "focal + own head"  # type: ignore[union-attr]


def test_a_run_does_not_start_once_per_process_without_torchrun(
    tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = command("run", *flags(tiny_roberta), "--out", tmp_path / "run")
    assert (said.code, said.err) == (
        2,
        "Error: WORLD_SIZE=2 in the environment without RANK: start with torchrun, or unset it\n",
    )
    with pytest.raises(KitError) as error:
        list(run(configuration(tiny_roberta), load_registry(), tmp_path / "run"))
    assert str(error.value) == "torchrun: only `empathy-kit run` trains in several processes; start this command without torchrun"


def test_a_part_of_the_tasks_is_trained_on_the_same_split(
    first: tuple[Path, list[Any]], tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]
) -> None:
    said = command(
        "run", *flags(tiny_roberta), "--tasks", "IP,ER", "--loss", "focal", "-o", "loss.ER.gamma", 3, "--out", tmp_path / "run"
    )
    assert said.code == 0
    content, whole = (json.loads((folder / "run.json").read_text("utf-8")) for folder in (tmp_path / "run", first[0]))
    assert list(content["scores"]) == ["ER", "IP"]  # in the schema's order
    assert content["config"]["tasks"] == ["ER", "IP"]
    assert {route for route in content["config"]["options"] if route.startswith("loss.")} == {
        *("loss.ER.gamma", "loss.ER.power", "loss.IP.gamma", "loss.IP.power"),
    }
    assert (content["data"]["sha256"], content["split"]["sha256"]) == (whole["data"]["sha256"], whole["split"]["sha256"])
    header = (tmp_path / "run" / "predictions.csv").read_text("utf-8").splitlines()[0]
    assert "EX" not in header


@pytest.mark.parametrize(
    ("tasks", "line"),
    [
        ("ER,XX", "Error: --tasks: 'XX' is unknown; there are ER, EX, IP"),
        ("ER,ER", "Error: --tasks: ER is given twice, expected each task once"),
        ("", "Error: --tasks: no task is given; there are ER, EX, IP"),
    ],
)
def test_unknown_tasks_are_one_line(
    tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said], tasks: str, line: str
) -> None:
    said = command("run", *flags(tiny_roberta), "--tasks", tasks, "--out", tmp_path / "run")
    assert (said.code, said.err.strip()) == (2, line)


def test_a_plugin_may_be_one_file(tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]) -> None:
    file = tmp_path / "own.py"
    file.write_text(
        "from empathy_kit import Loss, hookimpl\n\n\n"
        "def own(task, *, alpha: float = 0.1):\n"
        '    """Smoothed."""\n'
        "    from torch.nn.functional import cross_entropy\n\n"
        '    return lambda logits, target: cross_entropy(logits, target, reduction="none", label_smoothing=alpha)\n\n\n'
        "@hookimpl\n"
        "def empathy_kit_losses():\n"
        '    yield Loss("own", own)\n'
    )
    arguments = ("run", *flags(tiny_roberta), "--loss", "own", "--plugin", file, "--out")
    assert command(*arguments, tmp_path / "run").code == 0
    recorded = json.loads((tmp_path / "run" / "run.json").read_text("utf-8"))["plugins"]["loss"]
    assert recorded["name"] == "own"
    assert recorded["distribution"] == "./own.py"
    assert recorded["version"].startswith("sha256:")
    said = command("run", "--config", tmp_path / "run" / "run.json", "--out", tmp_path / "again")
    assert (said.code, said.err) == (
        2,
        f"Error: loss own: the recorded run had it from ./own.py {recorded['version']}, which is missing; "
        "give its file as --plugin, or in Python as load(..., plugins=[...])\n",
    )
    file.write_text(file.read_text() + "\n")
    said = command("run", "--config", tmp_path / "run" / "run.json", "--plugin", file, "--out", tmp_path / "again")
    assert said.code == 0
    assert "whose numbers may differ" in said.err
