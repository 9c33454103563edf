"""One run from data to record: what it leaves behind, and what it never tells."""

from __future__ import annotations

import hashlib
import json
import re
import time
import traceback
from collections.abc import Callable
from dataclasses import fields, replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from run_world import FILES, Said, assert_tells_nothing, configuration, flags, read_json, read_predictions
from torch import Tensor, nn

import empathy_kit
from empathy_kit import Encoded, Head, Loss, Task, Trunk
from empathy_kit.config import RunConfig
from empathy_kit.contracts import Texts
from empathy_kit.core.batch import Examples
from empathy_kit.core.calibration import calibration, fit_temperature, tempered
from empathy_kit.core.encoder import load_encoder
from empathy_kit.core.evaluation import Evaluation
from empathy_kit.core.state import Epoch
from empathy_kit.core.tokens import Labels, Tokenization, TokenPair
from empathy_kit.core.trainer import Step
from empathy_kit.data.schema import EPITOME
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split
from empathy_kit.errors import KitError, NotFinite
from empathy_kit.plugins import Provided, Registry, load_registry
from empathy_kit.runs import record
from empathy_kit.runs.choose import choose_plugins
from empathy_kit.runs.record import Record
from empathy_kit.runs.results import size_and_speed, swap_seekers
from empathy_kit.runs.train import Opened, run


def test_the_events_are_opened_then_steps_and_epochs_then_finished(first: tuple[Path, list[Any]]) -> None:
    folder, (opened, *between, finished) = first
    assert isinstance(opened, Opened)
    assert all(isinstance(event, Step | Epoch) for event in between)
    assert [event.epoch for event in between if isinstance(event, Epoch)] == [1, 2]
    assert finished.folder == folder
    assert finished.record.scores == read_json(folder)["scores"]
    assert (opened.oracle, opened.device) == (False, "cpu")


def test_a_run_directory_holds_what_the_design_says_and_nothing_beside_it(first: tuple[Path, list[Any]]) -> None:
    folder, events = first
    assert {path.name for path in folder.iterdir()} == {*FILES, "model"}
    assert [path.name for path in folder.parent.iterdir()] == ["run"]  # no staging folder is left
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["sha256"]
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert manifest.keys() == files.keys() - {"manifest.json"}
    for name, expected in manifest.items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == expected
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    epochs = [event for event in events if isinstance(event, Epoch)]
    assert [line["validation_loss"] for line in history] == [epoch.validation_loss for epoch in epochs]


def test_run_json_writes_out_defaults_options_providers_versions_and_hashes(first: tuple[Path, list[Any]]) -> None:
    folder, events = first
    content = read_json(folder)
    assert content.keys() == {entry.name for entry in fields(Record)}
    assert content["config"].keys() == {entry.name for entry in fields(RunConfig)}
    assert (content["config"]["patience"], content["config"]["tasks"]) == (2, None)
    assert content["config"]["schema"] == EPITOME.to_dict()
    options = {"loss.ER.gamma": 3.0, "loss.EX.gamma": 1.5, "loss.IP.gamma": 1.5, "rationale.weight": 1.0}
    options |= dict.fromkeys(("loss.ER.power", "loss.EX.power", "loss.IP.power"), 0.0)
    options |= {"trunk.hidden": 16, "trunk.layers": 1, "trunk.dropout": 0.3}
    assert content["config"]["options"] == options
    ours = {"distribution": "empathy-kit", "version": empathy_kit.__version__}
    assert content["plugins"] == {
        "loss": {"name": "focal", **ours},
        "rationale": {"name": "none", **ours},
        "head": {"name": "linear", **ours},
        "sampler": {"name": "all", **ours},
        "trunk": {"name": "gru", **ours},
    }
    assert content["kit"] == empathy_kit.__version__
    assert content["versions"]["torch"] == metadata.version("torch")
    assert content["versions"].keys() >= {"python", "transformers", "tokenizers", "numpy"}
    opened = events[0]
    assert content["data"]["sha256"] == load_corpus("sample").sha256()
    split = make_split(load_corpus("sample"), "grouped", 0)
    assert (content["data"], content["split"]) == (json.loads(json.dumps(opened.data)), json.loads(json.dumps(opened.split)))
    assert content["split"]["sha256"] == split.sha256()
    assert list(content["data"]["sources"]) == ["pairs.jsonl"]
    assert content["split"]["pairs"]["test"] == content["scores"]["ER"]["n"] == len(split.test)
    assert content["machine"]["threads"] == 1
    assert content["machine"]["losses"].startswith(("fused CPU kernel, ", "closed form in torch, no fused kernel: "))
    assert (content["oracle"], content["spans"]) == (False, None)
    best = [event for event in events if isinstance(event, Epoch) and event.best][-1]
    assert content["training"]["best_epoch"] == best.epoch
    assert content["training"]["validation_loss"] == best.validation_loss


def test_the_record_has_the_models_size_and_its_speed(first: tuple[Path, list[Any]]) -> None:
    folder, _ = first
    found = read_json(folder)["model"]
    saved = (folder / "model" / "model.safetensors").read_bytes()
    assert found["bytes"] == len(saved) - 8 - int.from_bytes(saved[:8], "little")  # without the header and its length
    assert found["trained"] == found["parameters"]
    assert 4 * found["parameters"] <= found["bytes"] < 4.1 * found["parameters"]
    assert found["pairs_per_second"] > 0


def test_frozen_parameters_are_not_counted_as_trained() -> None:
    model: Any = nn.Linear(4, 3)
    model.weight.requires_grad_(False)
    objective: Any = SimpleNamespace(losses={})
    evaluated = Evaluation({"ER": np.zeros((6, 3))}, loss=0.0, spans=None, seconds=1.5)
    assert size_and_speed(model, objective, evaluated) == {
        "parameters": 15,
        "trained": 3,
        "bytes": 60,
        "pairs_per_second": 4.0,
    }


def test_predictions_agree_with_the_scores_and_bear_no_text_and_no_id(
    first: tuple[Path, list[Any]], post_words: set[str]
) -> None:
    folder = first[0]
    rows = read_predictions(folder)
    corpus = load_corpus("sample")
    split = make_split(corpus, "grouped", 0)
    test = split.test
    assert len(rows) == len(test) == len({row["id"] for row in rows})
    assert rows[0].keys() == {
        "id",
        *(f"{name}_{what}" for name in EPITOME.names for what in ("true", "predicted", "swapped", "p0", "p1", "p2")),
    }
    for index, name in enumerate(EPITOME.names):
        confusion = [[0] * 3 for _ in range(3)]
        for row, position in zip(rows, test, strict=True):
            shares = [float(row[f"{name}_p{level}"]) for level in range(3)]
            assert sum(shares) == pytest.approx(1, abs=2e-6)
            assert shares[int(row[f"{name}_predicted"])] == max(shares)
            assert int(row[f"{name}_true"]) == corpus.pairs[position].levels[index]
            confusion[int(row[f"{name}_true"])][int(row[f"{name}_predicted"])] += 1
        assert confusion == read_json(folder)["scores"][name]["confusion"]
    for row, position in zip(rows, test, strict=True):
        pair = corpus.pairs[position]
        assert re.fullmatch("[0-9a-f]{16}", row["id"])
        for raw in (pair.pair_id, pair.seeker_id, str(pair.row)):
            assert row["id"] not in {hashlib.new(kind, raw.encode()).hexdigest()[:16] for kind in ("md5", "sha1", "sha256")}
    assert_tells_nothing(folder, post_words)


def test_the_validation_parts_predictions_are_kept_as_they_were_at_the_chosen_epoch(first: tuple[Path, list[Any]]) -> None:
    folder, events = first
    rows = read_predictions(folder, "validation.csv")
    corpus = load_corpus("sample")
    split = make_split(corpus, "grouped", 0)
    assert len(rows) == len(split.validation)
    assert not {row["id"] for row in rows} & {row["id"] for row in read_predictions(folder)}
    assert "ER_swapped" not in rows[0]
    best = [event for event in events if isinstance(event, Epoch) and event.best][-1]
    for index, name in enumerate(EPITOME.names):
        assert [int(row[f"{name}_true"]) for row in rows] == [corpus.pairs[at].levels[index] for at in split.validation]
        right = sum(row[f"{name}_true"] == row[f"{name}_predicted"] for row in rows)
        assert right / len(rows) == pytest.approx(best.validation_accuracy[name])


def test_each_tasks_temperature_is_fitted_on_the_validation_part_and_stands_in_the_models_folder(
    first: tuple[Path, list[Any]],
) -> None:
    folder = first[0]
    found = read_json(folder)["calibration"]
    stored = json.loads((folder / "model" / "calibration.json").read_text())
    assert stored == {"temperatures": {name: values["temperature"] for name, values in found.items()}}
    seen, unseen = read_predictions(folder, "validation.csv"), read_predictions(folder)
    for name, values in found.items():
        chances, true = (
            (np.array([[float(row[f"{name}_p{level}"]) for level in range(3)] for row in rows]) for rows in (seen, unseen)),
            [np.array([int(row[f"{name}_true"]) for row in rows]) for rows in (seen, unseen)],
        )
        validation, test = chances
        assert values["temperature"] == pytest.approx(fit_temperature(validation, true[0]), rel=1e-3)
        assert values["ece_before"] == pytest.approx(calibration(test, true[1]).ece, abs=1e-5)
        assert values["ece_after"] == pytest.approx(calibration(tempered(test, values["temperature"]), true[1]).ece, abs=1e-5)


def test_every_response_also_meets_a_strangers_seeker_post(first: tuple[Path, list[Any]]) -> None:
    labels = Labels((0, 0, 0), ((), (), ()), (True,) * 3)
    pairs = Examples(tuple(TokenPair([1, at // 2, 2], [at]) for at in range(20)), (labels,) * 20)  # twins of seekers
    swapped = swap_seekers(pairs, seed=3)
    assert all(one.seeker != other.seeker for one, other in zip(pairs.texts, swapped.texts, strict=True))
    assert [pair.response for pair in swapped.texts] == [pair.response for pair in pairs.texts]
    assert swapped.labels == pairs.labels
    assert swap_seekers(pairs, seed=3) == swapped != swap_seekers(pairs, seed=4)
    alike = replace(pairs, texts=tuple(replace(pair, seeker=[1, 2]) for pair in pairs.texts))
    assert swap_seekers(alike, seed=0) is alike  # so that nothing is predicted a second time
    rows = read_predictions(first[0])
    assert {row[f"{name}_swapped"] for row in rows for name in EPITOME.names} <= {"0", "1", "2"}


def test_seeker_posts_of_which_nearly_all_are_the_same_are_swapped_without_a_search() -> None:
    """A search for another one, pair by pair, would take minutes."""
    labels = Labels((0, 0, 0), ((), (), ()), (True,) * 3)
    same, other = TokenPair([1, 2], [3]), TokenPair([1, 4, 2], [3])
    pairs = Examples((other, *[same] * 49_999), (labels,) * 50_000)
    started = time.monotonic()
    swapped = swap_seekers(pairs, seed=0)
    assert time.monotonic() - started < 20
    assert [pair.seeker for pair in swapped.texts] == [same.seeker, *[other.seeker] * 49_999]
    alike = replace(pairs, texts=(same,) * 50_000)
    assert swap_seekers(alike, seed=0) is alike


def test_what_is_recorded_as_swapped_was_predicted_from_the_strangers_post(tiny_roberta: Path, tmp_path: Path) -> None:
    class Length(nn.Module):
        """A trunk that sees of a pair how long its seeker post is."""

        width = 1

        def __init__(self, encoder: Any, injector: nn.Module) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, texts: Texts, gold: Tensor | None = None) -> tuple[Encoded, None]:
            length = texts.seeker_mask.sum(1, keepdim=True).float()
            return Encoded(length, length[:, None], torch.ones(len(texts), 1, dtype=torch.bool)), None

    class Even(nn.Module):
        """A head that says 1 where the length is even, else 0."""

        def __init__(self) -> None:
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(()))

        def forward(self, encoded: Encoded) -> Tensor:
            even = (encoded.pooled % 2 == 0).float()
            return torch.cat([0.5 + 0 * even, even, 0 * even], dim=1) + self.unused

        def probabilities(self, logits: Tensor) -> Tensor:
            return logits.softmax(-1)

    own = (
        Provided("trunk", Trunk("length", lambda encoder, injector: Length(encoder, injector)), "mine", "1"),
        Provided("head", Head("even", lambda task, width: Even()), "mine", "1"),
    )
    config = replace(configuration(tiny_roberta, trunk="length", head="even", max_tokens=64), options={})
    list(run(config, Registry((*load_registry().provided, *own)), tmp_path / "run"))
    _, tokenizer = load_encoder(str(tiny_roberta), local=True)
    corpus = load_corpus("sample")
    test = make_split(corpus, "grouped", 0).test
    examples, _ = Tokenization(tokenizer, 64, "head-tail").encode_labelled([corpus.pairs[at] for at in test])
    rows = read_predictions(tmp_path / "run")
    for said, part in (("predicted", examples), ("swapped", swap_seekers(examples, seed=0))):
        assert [row[f"ER_{said}"] for row in rows] == [str(int(len(pair.seeker) % 2 == 0)) for pair in part.texts]


def test_without_the_seeker_posts_they_do_not_matter(tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]) -> None:
    said = command("run", *flags(tiny_roberta), "--posts", "response", "--out", tmp_path / "run")
    assert said.code == 0
    assert "the model does not see the seeker posts" in said.err
    for row in read_predictions(tmp_path / "run"):
        assert all(row[f"{name}_swapped"] == row[f"{name}_predicted"] for name in EPITOME.names)
    assert record.read(tmp_path / "run").title == "ce + response only"


def test_a_share_of_the_training_seekers_leaves_the_other_parts_as_they_are(
    first: tuple[Path, list[Any]], tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]
) -> None:
    said = command("run", *flags(tiny_roberta), "--train-share", ".6", "--out", tmp_path / "run")
    assert said.code == 0
    whole, thin = (record.read(folder).split for folder in (first[0], tmp_path / "run"))
    assert thin["sha256"] == whole["sha256"]  # so that a comparison takes both
    assert [row["id"] for row in read_predictions(first[0])] == [row["id"] for row in read_predictions(tmp_path / "run")]
    assert thin["pairs"] == {**whole["pairs"], "train": whole["pairs"]["train"] - thin["unused"]}
    assert f"left out of the training part: {thin['unused']} pairs (--train-share)" in said.err


def with_loss(loss: Callable[[Tensor, Tensor], Tensor]) -> Registry:
    def build(task: Task) -> Callable[[Tensor, Tensor], Tensor]:
        return loss

    return Registry((*load_registry().provided, Provided("loss", Loss("broken", build), "empathy-kit-broken", "1")))


def test_a_run_that_breaks_leaves_no_directory_and_no_post_in_its_traceback(
    tiny_roberta: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def boom(logits: Tensor, target: Tensor) -> Tensor:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match=r"^boom") as error:
        list(run(configuration(tiny_roberta, loss="broken"), with_loss(boom), tmp_path / "run"))
    assert error.value.__notes__ == ["loss broken is from empathy-kit-broken 1"]
    # With the local variables of every frame, as debuggers and error trackers add them: a pair's repr hides its posts.
    frames = traceback.TracebackException.from_exception(error.value, capture_locals=True)
    told = "".join(frames.format()) + "".join(capfd.readouterr())
    assert "corpus=Corpus(name='sample'" in told
    for pair in load_corpus("sample").pairs:
        for post in (pair.seeker, pair.response):
            assert post[:25] not in told
            assert post[-25:] not in told
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_a_number_ends_the_run_with_a_line(tiny_roberta: Path, tmp_path: Path) -> None:
    registry = with_loss(lambda logits, target: logits.sum(-1) * float("nan"))
    with pytest.raises(KitError) as error:
        list(run(configuration(tiny_roberta, loss="broken"), registry, tmp_path / "run"))
    assert str(error.value) == (
        "the loss became nan in epoch 1, step 1; try a smaller learning rate or another loss "
        "(loss broken is from empathy-kit-broken 1)"
    )
    assert list(tmp_path.iterdir()) == []


def test_probabilities_that_are_no_numbers_name_the_plugin(tiny_roberta: Path) -> None:
    plugins = choose_plugins(configuration(tiny_roberta, loss="broken"), with_loss(lambda logits, target: logits.sum(-1)))
    with pytest.raises(KitError) as error, plugins.blamed():
        raise NotFinite("ER", 1, 2, 0, "try another loss")
    assert str(error.value) == (
        "ER: the probabilities of 1 of 2 pairs are no finite numbers; try another loss (loss broken is from empathy-kit-broken 1)"
    )
