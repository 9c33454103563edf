"""A saved model says the same, bit for bit, and a changed one is refused."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from empathy_kit.core.engine import Engine, Predictions
from empathy_kit.recipes import load, run
from safetensors.torch import load_file, save_file

from empathy_kit import record
from empathy_kit.config import RunConfig, configure
from empathy_kit.core import checkpoint
from empathy_kit.core.model import Model
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split
from empathy_kit.errors import KitError
from empathy_kit.plugins import load_registry


@pytest.fixture(scope="module")
def finished(tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Predictions]]:
    """A run's folder, and what its model said of the validation and the test part, before it was saved."""
    folder = tmp_path_factory.mktemp("checkpoint") / "run"
    said: list[Predictions] = []
    predict = Engine.predict

    def listening(self: Engine, *args: object, **options: object) -> Predictions:
        said.append(predict(self, *args, **options))  # type: ignore[arg-type]
        return said[-1]

    changes = {"encoder": str(tiny_roberta), "rationale": "predicted", "head": "attention", "epochs": 1, "threads": 1}
    config = configure(RunConfig(), {**changes, "max_tokens": 16, "hidden": 16, "batch_size": 64})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "predict", listening)
        list(run(config, load_registry(), folder))
    return folder, said


@pytest.fixture
def copy(finished: tuple[Path, list[Predictions]], tmp_path: Path) -> Path:
    """A run that a test may spoil."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def test_a_loaded_model_gives_bitwise_the_same_predictions(finished: tuple[Path, list[Predictions]]) -> None:
    folder, said = finished
    torch.manual_seed(12345)  # whatever state the process is in
    loaded = load(folder, load_registry())
    corpus = load_corpus("sample")
    tokens, _ = loaded.tokenization.encode(corpus.pairs)
    again = loaded.engine.predict([tokens[at] for at in make_split(corpus, "grouped", 0).test])
    for name, rows in said[-2].probabilities.items():  # the last is with the seekers swapped
        assert np.array_equal(again.probabilities[name], rows)
    assert again.spans == said[-2].spans
    assert again.loss == said[-2].loss
    assert loaded.record == record.read(folder)


def test_a_checkpoint_is_safetensors_and_json_without_a_pickle(finished: tuple[Path, list[Predictions]]) -> None:
    model = finished[0] / record.MODEL
    names = {path.name for path in model.rglob("*")}
    assert {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"} <= names
    assert {path.suffix for path in model.rglob("*")} <= {".safetensors", ".json", ".txt"}
    for path in finished[0].rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            path.read_text(encoding="utf-8")  # a pickle, or a zip of pickles, is no UTF-8


@pytest.mark.parametrize("name", ["model/model.safetensors", "model/tokenizer.json", "run.json", "predictions.csv"])
def test_one_changed_byte_is_caught_by_the_manifest(copy: Path, name: str) -> None:
    path = copy / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1  # in the weights: the last bits of one number
    path.write_bytes(content)
    with pytest.raises(KitError, match=f"^{re.escape(f'{path}: changed after the run (sha256 differs from the manifest)')}$"):
        load(copy, load_registry())


def test_a_file_that_was_removed_or_added_is_caught_too(copy: Path) -> None:
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
    model = load(folder, load_registry()).engine.model
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
