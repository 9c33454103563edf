"""A saved model says the same, bit for bit, and a changed one is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from small import make_model
from torch import Tensor, nn

from empathy_kit.cli import cli
from empathy_kit.config import RunConfig, configure
from empathy_kit.core import checkpoint
from empathy_kit.core.encoder import load_encoder
from empathy_kit.core.evaluation import Evaluation
from empathy_kit.core.heads import LinearHead
from empathy_kit.core.losses.cross_entropy import cross_entropy
from empathy_kit.core.model import Model
from empathy_kit.core.objective import Objective
from empathy_kit.core.trainer import Trainer
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split
from empathy_kit.errors import KitError
from empathy_kit.plugins import load_registry
from empathy_kit.runs import record
from empathy_kit.runs.load import load
from empathy_kit.runs.train import run


@pytest.fixture(scope="module")
def finished(tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Evaluation]]:
    """A run's folder, and what its model said of the test part, before it was saved."""
    folder = tmp_path_factory.mktemp("checkpoint") / "run"
    said: list[Evaluation] = []
    evaluate = Trainer.evaluate

    def listening(self: Trainer, *args: Any) -> Evaluation:
        said.append(evaluate(self, *args))
        return said[-1]

    changes = {"encoder": str(tiny_roberta), "rationale": "predicted", "head": "attention", "epochs": 1, "threads": 1}
    config = configure(RunConfig(), {**changes, "max_tokens": 16, "batch_size": 64, "options": {"trunk.hidden": 16}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "evaluate", listening)
        list(run(config, load_registry(), folder))
    return folder, said


@pytest.fixture
def copy(finished: tuple[Path, list[Evaluation]], tmp_path: Path) -> Path:
    """A run that a test may spoil."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def test_a_loaded_model_gives_bitwise_the_same_predictions(finished: tuple[Path, list[Evaluation]]) -> None:
    folder, said = finished
    torch.manual_seed(12345)  # whatever state the process is in
    loaded = load(folder, load_registry())
    corpus, before = load_corpus("sample"), said[-2]  # the last is with the seekers swapped
    test = [corpus.pairs[at] for at in make_split(corpus, "grouped", 0).test]
    again = list(loaded.predictor.predict(loaded.tokenization.encode(test)))
    assert before.spans is not None
    for at, found in enumerate(again):
        assert all(np.array_equal(found.probabilities[name], rows[at]) for name, rows in before.probabilities.items())
        assert found.evidence is not None
        assert np.array_equal(found.evidence > 0.5, before.spans[at])
    assert loaded.record == record.read(folder)


class Learnt(nn.Module):
    """A loss that learns a number, and counts what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(logits * self.scale, target)


def test_what_losses_have_learnt_is_saved_and_comes_back_a_heads_own_with_the_head(tiny_roberta: Path, tmp_path: Path) -> None:
    class Own(LinearHead):
        def __init__(self) -> None:
            super().__init__(12, 2)
            self.criterion = Learnt()

    def made() -> tuple[Model, Objective]:
        model = make_model(heads={"ER": LinearHead(12, 2), "EX": Own()})
        return model, Objective({"ER": Learnt(), "EX": model.heads["EX"].criterion})  # type: ignore[dict-item]

    model, objective = made()
    with torch.no_grad():
        objective.losses["ER"].scale.fill_(3)  # type: ignore[union-attr]
        objective.losses["EX"].scale.fill_(5)  # type: ignore[union-attr]
        objective.losses["ER"].seen.fill_(7)  # type: ignore[union-attr]
    encoder, tokenizer = load_encoder(str(tiny_roberta), local=True)
    checkpoint.save(tmp_path / "model", model, objective, tokenizer, encoder)
    names = set(load_file(tmp_path / "model" / checkpoint.WEIGHTS))
    assert {name for name in names if "scale" in name} == {"losses.ER.scale", "heads.EX.criterion.scale"}
    fresh, losses = made()
    checkpoint.load(tmp_path / "model", fresh, losses)
    assert [loss.scale.item() for loss in losses.losses.values()] == [3, 5]  # type: ignore[operator,union-attr]
    assert int(losses.losses["ER"].seen) == 7  # type: ignore[arg-type]
    checkpoint.load(tmp_path / "model", made()[0])  # to predict, no losses are needed


def test_a_disk_that_is_full_is_an_os_error_as_for_every_other_file(
    tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise SafetensorError("Error while serializing: No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    encoder, tokenizer = load_encoder(str(tiny_roberta), local=True)
    with pytest.raises(OSError, match="No space left on device"):
        checkpoint.save(tmp_path / "model", make_model(), Objective({}), tokenizer, encoder)


@pytest.mark.parametrize(("said", "raised"), [("No space left on device (os error 28)", OSError), ("a bug", RuntimeError)])
def test_a_disk_that_is_full_when_the_tokenizer_is_written_is_an_os_error_too(
    tiny_roberta: Path, tmp_path: Path, said: str, raised: type[Exception]
) -> None:
    class Tokenizer:
        def save_pretrained(self, folder: Path) -> None:
            raise RuntimeError(said)  # the tokenizers library raises a plain Exception

    encoder, _ = load_encoder(str(tiny_roberta), local=True)
    with pytest.raises(raised, match=re.escape(said)):
        checkpoint.save(tmp_path / "model", make_model(), Objective({}), Tokenizer(), encoder)


def test_a_run_that_kept_no_model_names_the_command_that_repeats_it_with_one(tiny_roberta: Path, tmp_path: Path) -> None:
    changes = {"encoder": str(tiny_roberta), "epochs": 1, "threads": 1, "max_tokens": 16, "batch_size": 64}
    config = configure(RunConfig(), {**changes, "options": {"trunk.hidden": 8, "trunk.layers": 1}})
    bare, repeated = tmp_path / "run", tmp_path / "again"
    list(run(config, load_registry(), bare, keep_model=False))
    with pytest.raises(KitError) as error:
        load(bare, load_registry())
    again = f"empathy-kit run --config {bare / 'run.json'} --out NEW"
    assert str(error.value) == f"{bare}: the run has no model; `{again}` repeats it and keeps its model"
    result = CliRunner().invoke(cli, again.replace("NEW", str(repeated)).split()[1:], catch_exceptions=False)
    assert result.exit_code == 0
    assert load(repeated, load_registry()).warnings == ()
    assert (repeated / "predictions.csv").read_bytes() == (bare / "predictions.csv").read_bytes()


def test_a_checkpoint_is_safetensors_and_json_without_a_pickle(finished: tuple[Path, list[Evaluation]]) -> None:
    model = finished[0] / record.MODEL
    names = {path.name for path in model.rglob("*")}
    assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert {path.suffix for path in model.rglob("*")} <= {".safetensors", ".json", ".txt"}
    for path in finished[0].rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            path.read_text(encoding="utf-8")  # a pickle, or a zip of pickles, is no UTF-8


def test_a_file_that_was_removed_or_added_is_caught_by_the_manifest(copy: Path) -> None:
    added = copy / "model" / "pytorch_model.bin"
    added.write_bytes(b"\x80\x04.")
    with pytest.raises(KitError, match=f"^{re.escape(f'{added}: not in the manifest; it was added after the run')}$"):
        load(copy, load_registry())
    added.unlink()
    weights = copy / "model" / "model.safetensors"
    weights.unlink()
    with pytest.raises(KitError, match=f"^{re.escape(f'{weights}: missing, but the manifest lists it')}$"):
        load(copy, load_registry())


def rebuilt(folder: Path) -> Model:
    model = load(folder, load_registry()).predictor.model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def test_weights_that_are_missing_broken_or_another_models_are_told_apart(copy: Path, tmp_path: Path) -> None:
    model, folder = rebuilt(copy), copy / record.MODEL
    path = folder / checkpoint.WEIGHTS
    checkpoint.load(folder, model)
    assert any(parameter.any() for parameter in model.parameters())

    weights = load_file(path)
    del weights["heads.ER.linear.weight"]
    save_file(weights, path)
    with pytest.raises(KitError, match=f"^{re.escape(f'{path}: holds the weights of another model')}$"):
        checkpoint.load(folder, model)
    path.write_bytes(b"\x80\x04not safetensors")
    with pytest.raises(KitError, match=f"^{re.escape(f'{path}: cannot be read: SafetensorError')}$"):
        checkpoint.load(folder, model)
    path.unlink()
    with pytest.raises(KitError, match=f"^{re.escape(f'{path}: cannot be read: FileNotFoundError')}$"):
        checkpoint.load(folder, model)
