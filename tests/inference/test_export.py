"""A run is exported: what is written, what is checked, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from folders import altered, rewritten
from small_runs import train
from torch import Tensor, nn

import empathy_kit
from empathy_kit import Head, KitError, Task
from empathy_kit.cli import cli
from empathy_kit.config import RunConfig, configure
from empathy_kit.contracts import Encoded
from empathy_kit.core.heads import LinearHead
from empathy_kit.core.scored import Scored
from empathy_kit.core.tokens import TokenPair
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split, thin_out
from empathy_kit.inference import export as exporting
from empathy_kit.inference.export import ATTEMPTS, export, largest_difference, largest_log_difference, losses
from empathy_kit.inference.graph import GraphEngine, open_session
from empathy_kit.plugins import Provided, Registry, load_registry
from empathy_kit.runs import record
from empathy_kit.runs.load import load
from empathy_kit.runs.train import run

for module in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(module, reason="the onnx extra is not installed")


def test_a_run_without_seekers_is_exported_in_float32_and_predicts_what_it_predicted(response_run: Path, tmp_path: Path) -> None:
    done = export(response_run, tmp_path / "model", load_registry())
    assert done.warnings == ()
    told = json.loads((tmp_path / "model" / "export.json").read_text())
    assert told == done.description
    assert (told["precision"], told["posts"], told["max_tokens"], told["truncate"]) == ("float32", "response", 16, "head-tail")
    assert told["apart"] < 1e-6
    assert told["apart"] < told["logits_apart"] < 1e-4
    assert [task["name"] for task in told["schema"]["tasks"]] == ["ER", "IP"]
    assert told["record"] == json.loads((response_run / "run.json").read_text())
    scores = told["scores"]
    assert scores["before"] == scores["after"]
    recorded = record.read(response_run).scores
    assert {name: each["accuracy"] for name, each in scores["before"].items()} == {
        name: recorded[name]["accuracy"]["value"] for name in ("ER", "IP")
    }
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert files == {"model.onnx", "tokenizer.json", "export.json", "calibration.json", "seen.json", "manifest.json"}
    posts = [("", pair.response) for pair in load_corpus("sample").pairs[:20]]
    ours, theirs = (empathy_kit.load(folder).predict(posts) for folder in (tmp_path / "model", response_run))
    for one, other in zip(ours, theirs, strict=True):
        for task in ("ER", "IP"):
            assert one.tasks[task].probabilities == pytest.approx(other.tasks[task].probabilities, abs=1e-6)


def test_a_graph_holds_standard_operators_and_in_int8_one_of_onnxruntimes_own(response_run: Path, marking_export: Path) -> None:
    import onnx

    small = onnx.load(marking_export / "model.onnx")
    assert {node.domain for node in small.graph.node} == {"", "com.microsoft"}
    assert {node.op_type for node in small.graph.node if node.domain} == {"MatMulIntegerToFloat"}
    assert not [each for each in small.graph.initializer if each.external_data]
    told = json.loads((marking_export / "export.json").read_text())
    assert told["in_int8"] == next(iter(ATTEMPTS))
    assert told["products"] == 2 * 6 + 3  # two layers of six, and the three attention heads' keys: all that are wide enough


def test_products_that_share_a_weight_each_keep_their_own_inputs_outliers(tmp_path: Path) -> None:
    """As where a trunk calls one encoder twice: once on the seeker post, once on the response."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(0)
    weight = draw.normal(size=(128, 32)).astype(np.float32)
    feeds = [{name: draw.normal(size=(64, 128)).astype(np.float32) for name in ("a", "b")} for _ in range(3)]
    for each in feeds:
        each["a"][:, 7] *= 100
    graph = helper.make_graph(
        [helper.make_node("MatMul", [name, "weight"], [f"{name}_out"]) for name in ("a", "b")],
        "twice",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 128]) for name in ("a", "b")],
        [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, ["n", 32]) for name in ("a", "b")],
        [numpy_helper.from_array(weight, "weight")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "float.onnx")
    assert exporting.quantise(tmp_path / "float.onnx", tmp_path / "int8.onnx", feeds, leave=lambda _: False) == 2
    found = open_session(tmp_path / "int8.onnx").run(None, feeds[0])
    for name, said in zip(("a", "b"), found, strict=True):
        true = feeds[0][name] @ weight
        assert np.abs(said - true).mean() < 0.02 * np.abs(true).mean()


def test_int8_that_costs_too_much_is_refused_with_the_figures_after_all_else_was_tried(
    marking_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Any] = []
    real = exporting.quantise

    def bad(source: Path, out: Path, feeds: Any, *, leave: Any) -> int:
        tried.append(leave)
        return real(source, out, feeds, leave=leave)

    monkeypatch.setattr(exporting, "quantise", bad)
    monkeypatch.setattr(exporting, "losses", lambda before, after: ["ER macro F1 -1.30"])
    with pytest.raises(KitError) as error:
        export(marking_run, tmp_path / "model", load_registry(), int8=True)
    assert tried == list(ATTEMPTS.values())
    figures = "; ".join(f"{what}: ER macro F1 -1.30" for what in ATTEMPTS)
    assert str(error.value) == f"{marking_run}: int8 costs too much on the test part, in points: {figures}; leave --int8 out"
    assert list(tmp_path.iterdir()) == []


def test_only_pairs_that_the_run_was_trained_on_are_shown_to_the_graph(tiny_roberta: Path, tmp_path: Path) -> None:
    folder = train(tmp_path / "run", tiny_roberta, train_share=0.5)
    corpus = load_corpus("sample")
    split = thin_out(corpus, make_split(corpus, "grouped", 0), 0.5)
    parts, _ = exporting._parts(load(folder, load_registry(), device="cpu"))
    assert parts is not None
    assert set(parts.shown) == set(split.train)  # the sample has fewer than are shown
    assert split.unused


def test_half_a_point_of_accuracy_and_one_of_macro_f1_may_be_lost() -> None:
    before = {"ER": {"accuracy": 0.8, "macro_f1": 0.7}, "EX": {"accuracy": 0.9, "macro_f1": 0.6}}
    held = {"ER": {"accuracy": 0.795, "macro_f1": 0.69}, "EX": {"accuracy": 0.95, "macro_f1": 0.7}}
    assert losses(before, held) == []
    after = {"ER": {"accuracy": 0.7949, "macro_f1": 0.71}, "EX": {"accuracy": 0.9, "macro_f1": 0.589}}
    assert losses(before, after) == ["ER accuracy -0.51", "EX macro F1 -1.10"]


def test_a_run_whose_data_is_gone_or_changed_is_exported_with_a_warning(response_run: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    shutil.copy(Path(empathy_kit.__file__).parent / "data" / "sample" / "pairs.jsonl", table)  # the run's pairs, from elsewhere
    config = {**record.read(response_run).config, "data": str(table)}
    folder = altered(response_run, tmp_path / "run", rewritten(config=config))
    assert export(folder, tmp_path / "there", load_registry()).warnings == ()
    table.write_text("".join(reversed(table.read_text("utf-8").splitlines(keepends=True))), "utf-8")
    assert export(folder, tmp_path / "changed", load_registry()).warnings == (
        f"scores are not compared: --data {table} or its split is not the run's any more",
    )
    table.unlink()
    done = export(folder, tmp_path / "gone", load_registry(), int8=True)
    assert "scores" not in done.description
    (warning,) = done.warnings
    assert warning.startswith(f"scores are not compared: the run's data cannot be read (--data {table}: no such file or folder;")


@pytest.mark.parametrize("part", ["data", "split"])
def test_a_run_without_the_hash_of_its_data_or_split_is_one_line(response_run: Path, tmp_path: Path, part: str) -> None:
    told = getattr(record.read(response_run), part)
    change = rewritten(**{part: {name: value for name, value in told.items() if name != "sha256"}})
    folder = altered(response_run, tmp_path / "run", change)
    with pytest.raises(KitError) as error:
        export(folder, tmp_path / "model", load_registry())
    assert str(error.value) == f"{folder / 'run.json'}: {record.MALFORMED}"


@pytest.mark.parametrize(
    ("check", "what"),
    [
        ("largest_difference", "probabilities (2.0e-03 apart, expected 1e-04)"),
        ("largest_log_difference", "logits (2.0e-03 apart, expected 1e-03)"),
    ],
)
def test_a_graph_that_computes_something_else_is_refused(
    response_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str, what: str
) -> None:
    monkeypatch.setattr(exporting, check, lambda one, other: 0.002)
    with pytest.raises(KitError) as error:
        export(response_run, tmp_path / "model", load_registry())
    assert str(error.value) == f"{response_run}: its graph gives other {what}"
    assert list(tmp_path.iterdir()) == []


def test_logits_that_differ_are_seen_where_probabilities_hardly_do() -> None:
    sure, surer = ([Scored({"ER": np.array([1 - p, p])}, None)] for p in (1e-7, 1e-9))
    assert largest_difference(sure, surer) < 1e-6
    assert largest_log_difference(sure, surer) == pytest.approx(np.log(100))
    never = [Scored({"ER": np.array([1.0, 0.0])}, None)]
    assert largest_log_difference(never, never) == 0
    assert largest_log_difference(never, [Scored({"ER": np.array([np.nan, 0.5])}, None)]) == np.inf


def test_int8_that_changes_many_levels_is_refused_where_no_scores_can_be_compared(
    response_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict = GraphEngine.predict
    engines: list[GraphEngine] = []

    def turned(engine: GraphEngine, pairs: Iterable[TokenPair]) -> Iterator[Scored]:
        engines.append(engine)  # the first is in float32
        for each in predict(engine, pairs):
            yield (
                each
                if engine is engines[0]
                else replace(each, probabilities={name: np.roll(p, 1) for name, p in each.probabilities.items()})
            )

    monkeypatch.setattr(GraphEngine, "predict", turned)
    with pytest.raises(KitError) as error:
        export(response_run, tmp_path / "model", load_registry(), int8=True, scores=False)
    assert "int8 costs too much on the pairs that were compared: all products of states and weights: " in str(error.value)
    assert " of 128 levels change" in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("first", [1, 2], ids=["float32", "int8"])
def test_a_graph_whose_probabilities_are_no_numbers_is_refused(
    response_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    score = GraphEngine._score
    engines: list[GraphEngine] = []

    def divided(engine: GraphEngine, pairs: list[TokenPair]) -> list[Scored]:
        engines.extend([engine] * (engine not in engines))  # the first is in float32
        wrong = engines.index(engine) + 1 >= first
        return [
            replace(each, probabilities={name: p * (np.nan if wrong else 1) for name, p in each.probabilities.items()})
            for each in score(engine, pairs)
        ]

    monkeypatch.setattr(GraphEngine, "_score", divided)
    with pytest.raises(KitError) as error:
        export(response_run, tmp_path / "model", load_registry(), int8=True, scores=False)
    none = "ER: the probabilities of 64 of 64 pairs are no finite numbers"
    tried = "; ".join(f"{what}: {none}" for what in ATTEMPTS)
    assert str(error.value) == (
        f"{response_run}: its graph gives other probabilities ({none})"
        if first == 1
        else f"{response_run}: int8 costs too much on the pairs that were compared: {tried}; leave --int8 out"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_no_graph_can_be_made_of_is_named_with_its_distribution(tiny_roberta: Path, tmp_path: Path) -> None:
    class Counting(LinearHead):
        def forward(self, encoded: Encoded) -> Tensor:
            return super().forward(encoded) * float(encoded.pooled.detach().sum() > -1e9)

    def build(task: Task, width: int) -> nn.Module:
        return Counting(width, task.num_classes)

    registry = Registry((*load_registry().provided, Provided("head", Head("counting", build), "empathy-kit-counting", "1.2")))
    config = configure(RunConfig(), {"encoder": str(tiny_roberta), "epochs": 1, "max_tokens": 16, "head": "counting"})
    list(run(config, registry, tmp_path / "run"))
    with pytest.raises(KitError) as error:
        export(tmp_path / "run", tmp_path / "model", registry)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'run'}: its model cannot be written as ONNX: ")
    assert text.endswith(" (head counting is from empathy-kit-counting 1.2)")
    assert "\n" not in text


def test_an_oracle_is_refused(tiny_roberta: Path, tmp_path: Path) -> None:
    folder = train(tmp_path / "run", tiny_roberta, rationale="gold")
    with pytest.raises(KitError) as error:
        export(folder, tmp_path / "model", load_registry())
    what = "an ORACLE, which reads annotated spans; whoever uses a model has none, so it is not exported"
    assert str(error.value) == f"{folder}: {what}"


def test_what_exists_is_not_overwritten_and_a_missing_package_is_named(
    response_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(KitError) as error:
        export(response_run, tmp_path / "model", load_registry())
    assert str(error.value) == f"--out {tmp_path / 'model'}: already exists; use another --out"
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(KitError) as error:
        export(response_run, tmp_path / "other", load_registry())
    assert str(error.value) == "onnxscript is not installed: pip install 'empathy-kit[onnx]' to export models"


def test_the_command_compares_no_scores_where_asked(response_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    said = CliRunner().invoke(cli, ["export", str(response_run), "--out", str(out), "--no-scores"], catch_exceptions=False)
    assert len(said.stdout.splitlines()) == 2  # what was written, and the largest difference
    assert said.stderr.endswith("warning: scores are not compared, as asked\n")
    assert "scores" not in json.loads((out / "export.json").read_text())


def test_the_command_prints_what_it_checked(response_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    said = CliRunner().invoke(cli, ["export", str(response_run), "--out", str(out), "--int8"], catch_exceptions=False)
    assert said.exit_code == 0
    first, second, third, *tasks = said.stdout.splitlines()
    assert first.startswith(f"{out}: ce + ER, IP only + response only, int8 (all products of states and weights), ")
    assert second.startswith("largest difference of a probability from the model's: ")
    assert third.startswith("on the ")
    assert [line.split(":")[0].strip() for line in tasks] == ["ER", "IP"]
    assert all("recall of level 2" in line for line in tasks)
