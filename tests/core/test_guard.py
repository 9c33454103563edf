"""What cannot be read as a text encoder, or asks for more than its weights can need, is one line before any harm is done."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_encoders import PLAIN, make
from transformers import AutoConfig, AutoModel

from empathy_kit.core import guard
from empathy_kit.core.encoder import load_encoder, longest_input, rebuild_encoder
from empathy_kit.errors import KitError


def save(folder: Path, tokenizer: Path, architecture: str, settings: dict[str, Any]) -> Path:
    """A folder with a tiny model of any kind, and RoBERTa's tokenizer."""
    folder.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, folder / file)
    AutoModel.from_config(AutoConfig.for_model(architecture, **settings)).save_pretrained(folder)
    return folder


def refusal(folder: Path) -> str:
    """What is said of a folder, without the folder."""
    with pytest.raises(KitError) as error:
        load_encoder(str(folder), local=True, attention_dropout=0.0)
    start = f"encoder {folder}: "
    assert str(error.value).startswith(start)
    assert len(str(error.value).splitlines()) == 1
    return str(error.value).removeprefix(start)


def change(folder: Path, **settings: object) -> None:
    """Write other settings into a folder's configuration."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **settings}), "utf-8")


T5 = {"d_model": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2, "d_ff": 16}
BART = {"d_model": 16, **{f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}}
CLIP = {"text_config": {**PLAIN, "vocab_size": 600}, "vision_config": {**PLAIN, "image_size": 8, "patch_size": 4}}
FNET = {"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 24, "vocab_size": 600}


@pytest.mark.parametrize(
    ("architecture", "settings", "message"),
    [
        ("t5", T5, "a t5 model has an encoder and a decoder, expected an encoder alone"),
        ("bart", {**BART, "vocab_size": 600}, "a bart model has an encoder and a decoder, expected an encoder alone"),
        ("vit", {**PLAIN, "image_size": 8, "patch_size": 4}, "a ViTModel cannot be read as a text encoder ("),
        ("clip", CLIP, "a CLIPModel cannot be read as a text encoder ("),
        ("fnet", FNET, "a FNetModel gives a post other states where it is padded (relative deviation "),
    ],
)
def test_a_model_that_is_no_text_encoder_is_one_line(
    tiny_roberta: Path, tmp_path: Path, architecture: str, settings: dict[str, Any], message: str
) -> None:
    assert refusal(save(tmp_path / "model", tiny_roberta, architecture, settings)).startswith(message)


def test_an_encoder_that_counts_from_token_to_token_reads_posts_of_any_length(tiny_roberta: Path, tmp_path: Path) -> None:
    settings = {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24, "vocab_size": 600, "pad_token_id": 1}
    folder = save(tmp_path / "model", tiny_roberta, "xlnet", settings)
    assert longest_input(load_encoder(str(folder), local=True, attention_dropout=0.0)[0]) == 1_000_000


def test_a_pooler_without_which_a_model_cannot_be_called_stays(tiny_roberta: Path, tmp_path: Path) -> None:
    settings = {**PLAIN, "embedding_size": 16, "vocab_size": 600, "pad_token_id": 1}
    load_encoder(str(save(tmp_path / "model", tiny_roberta, "squeezebert", settings)), local=True)


def test_a_setting_that_an_encoder_lacks_is_refused_unless_it_is_the_default(tiny_roberta: Path, tmp_path: Path) -> None:
    settings = {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 24, "vocab_size": 600, "pad_token_id": 1}
    folder = save(tmp_path / "model", tiny_roberta, "xlnet", settings)
    with pytest.raises(KitError) as error:
        load_encoder(str(folder), local=True, attention_dropout=0.25)
    assert str(error.value) == f"attention-dropout 0.25: {folder} has no such setting, expected none or 0"


def test_weights_that_are_no_numbers_are_one_line(tiny_roberta: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = make("bert", tmp_path / "damaged", tiny_roberta)
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.0.output.dense.bias"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert refusal(folder) == "its states are not finite; its file of weights is damaged"


def test_a_vocabulary_beyond_the_embedding_is_one_line(tiny_roberta: Path, tmp_path: Path) -> None:
    folder = make("bert", tmp_path / "small", tiny_roberta, vocab_size=500)
    assert refusal(folder) == "its tokenizer has 600 words, its embedding 500; expected no more"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "../outside.safetensors", "..\\outside.safetensors", 7])
def test_an_index_may_name_safetensors_beside_it_alone(tiny_roberta: Path, tmp_path: Path, name: Any) -> None:
    folder = make("bert", tmp_path / "split", tiny_roberta)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": name}}))
    assert refusal(folder) == f"model.safetensors.index.json names {str(name)!r}, expected .safetensors files next to it"


@pytest.mark.parametrize("setting", ["num_hidden_layers", "hidden_size", "vocab_size", "max_position_embeddings"])
def test_an_absurd_size_is_refused_before_memory_is_asked_for(tiny_roberta: Path, tmp_path: Path, setting: str) -> None:
    folder = make("bert", tmp_path / "absurd", tiny_roberta)
    change(folder, **{setting: 10**9})
    limit = "256" if setting == "num_hidden_layers" else "1,000,000"
    expected = f"its configuration has {setting} 1000000000, expected 1 to {limit} for weights of 39 tensors and 14,816 numbers"
    assert refusal(folder) == expected
    with pytest.raises(KitError) as error:
        rebuild_encoder(folder)
    assert str(error.value) == f"encoder {folder}: {expected}"


@pytest.mark.parametrize(("setting", "value"), [("num_hidden_layers", 0), ("hidden_size", -1), ("hidden_size", "wide")])
def test_an_impossible_size_is_one_line(tiny_roberta: Path, tmp_path: Path, setting: str, value: object) -> None:
    folder = make("bert", tmp_path / "impossible", tiny_roberta)
    change(folder, **{setting: value})
    refusal(folder)
    with pytest.raises(KitError, match=r"^encoder "):
        rebuild_encoder(folder)


def test_a_checkpoint_is_not_built_far_larger_than_its_weights(tiny_roberta: Path, tmp_path: Path) -> None:
    folder = make("bert", tmp_path / "grown", tiny_roberta)
    change(folder, hidden_size=10_000, intermediate_size=10_000)  # each in bounds, and together 37 GB
    with pytest.raises(KitError) as error:
        rebuild_encoder(folder)
    numbers = str(error.value).removeprefix(f"encoder {folder}: its configuration asks for ").split(" ")[0]
    assert int(numbers.replace(",", "")) > 1_000_000_000
    assert str(error.value).endswith(" numbers, model.safetensors has 14,816")


def test_weights_of_too_many_tensors_are_refused(tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make("bert", tmp_path / "many", tiny_roberta)
    monkeypatch.setattr(guard, "_TENSORS", 38)
    assert refusal(folder) == "its weights are 39 tensors, expected at most 38"
    monkeypatch.setattr(guard, "_TENSORS", 39)
    load_encoder(str(folder), local=True)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "nothing-known"}'])
def test_a_checkpoint_whose_configuration_is_nonsense_is_one_line(tiny_roberta: Path, tmp_path: Path, text: str) -> None:
    folder = make("bert", tmp_path / "nonsense", tiny_roberta)
    (folder / "config.json").write_text(text, "utf-8")
    with pytest.raises(KitError) as error:
        rebuild_encoder(folder)
    assert str(error.value).startswith(f"encoder {folder}: cannot be loaded (")


def test_a_tokenizer_that_would_take_minutes_to_load_is_refused(tiny_roberta: Path, tmp_path: Path) -> None:
    folder = make("bert", tmp_path / "added", tiny_roberta)
    content = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    content["added_tokens"] = [{**content["added_tokens"][0], "id": 600 + at, "content": f"<{at}>"} for at in range(30_000)]
    (folder / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    assert refusal(folder) == "its tokenizer adds 30,000 tokens, expected at most 20,000"


@pytest.mark.parametrize("name", ["config.json", "added_tokens.json"])
def test_a_pipe_or_a_device_in_its_folder_is_not_waited_for(tmp_path: Path, tiny_roberta: Path, name: str) -> None:
    folder = Path(shutil.copytree(tiny_roberta, tmp_path / "encoder"))
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert refusal(folder) == f"its {name} is not a regular file"
    (folder / name).unlink()
    (folder / name).symlink_to("/dev/zero")
    assert refusal(folder) == f"its {name} is not a regular file"
