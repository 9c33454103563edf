"""An encoder is loaded whole, in float32, or refused in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from empathy_kit.core.encoder import load_encoder, longest_input
from empathy_kit.encoders import encoder_source
from empathy_kit.errors import KitError


@pytest.fixture
def folder(tiny_roberta: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_roberta, tmp_path / "encoder"))


def refusal(folder: Path) -> str:
    with pytest.raises(KitError) as error:
        load_encoder(str(folder), local=True)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


def test_an_encoder_stored_in_half_precision_is_trained_in_float32(folder: Path) -> None:
    weights = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}), "utf-8")
    encoder, _ = load_encoder(str(folder), local=True)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}


def test_weights_that_the_file_lacks_are_not_drawn_at_random(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "layer.1.attention.self.query" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert refusal(folder) == (
        f"encoder {folder}: its file lacks 2 of the weights (encoder.layer.1.attention.self.query.bias, ...), "
        "expected all of them"
    )


def test_the_model_of_a_run_is_no_encoder(folder: Path) -> None:
    weights = {f"trunk.encoder.model.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file({**weights, "heads.ER.linear.bias": torch.zeros(3)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert refusal(folder) == (
        f"encoder {folder}: the model of a finished run found, expected an encoder alone; use the encoder that the run was made "
        "from, which its run.json names"
    )


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_broken_file_is_one_line_and_no_traceback(folder: Path, file: str) -> None:
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: len(data) // 2])
    assert refusal(folder).startswith(f"encoder {folder}: cannot be loaded (")


def test_positions_that_roberta_keeps_for_padding_are_not_counted(folder: Path) -> None:
    encoder, _ = load_encoder(str(folder), local=True)
    assert longest_input(encoder) == 128  # of 130


def test_the_attention_dropout_is_the_one_that_was_asked_for(folder: Path) -> None:
    assert load_encoder(str(folder), local=True)[0].config.attention_probs_dropout_prob == 0.1
    assert load_encoder(str(folder), local=True, attention_dropout=0.0)[0].config.attention_probs_dropout_prob == 0.0


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere", "a/b/c"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(KitError) as error:
        encoder_source(name)
    assert (
        str(error.value)
        == f"--encoder {name}: no such folder; expected minilm, mpnet, a folder, or a name on the Hugging Face hub"
    )
