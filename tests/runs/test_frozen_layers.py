"""Frozen layers: they stay as they were, and their states are computed once and kept in a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from run_world import Said, configuration, flags, read_predictions

from empathy_kit.core.encoder import load_encoder
from empathy_kit.core.frozen import FrozenStates, freeze
from empathy_kit.core.unpadded import make_unpadded
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split
from empathy_kit.errors import KitError
from empathy_kit.plugins import load_registry
from empathy_kit.runs.build import open_encoder
from empathy_kit.runs.choose import choose_plugins
from empathy_kit.runs.load import load
from empathy_kit.runs.prepare import prepare
from empathy_kit.runs.train import run


def test_frozen_layers_stay_as_they_were_and_their_states_are_computed_once(
    tiny_roberta: Path, tmp_path: Path, cache: Path, command: Callable[..., Said]
) -> None:
    from safetensors.torch import load_file

    before = load_file(tiny_roberta / "model.safetensors")
    said = command("run", *flags(tiny_roberta), "--freeze-layers", "1", "--out", tmp_path / "alone")
    (states,) = (cache / "states").iterdir()
    assert f"the 1 lowest layers are frozen; their states of every post are in {states}" in said.err
    after = load_file(tmp_path / "alone" / "model" / "model.safetensors")
    for name, weight in before.items():
        moved = not torch.equal(after.get(f"trunk.encoder.model.{name}", weight), weight)
        assert moved == ("layer.1." in name), name

    written = states.stat().st_ino
    assert command("run", *flags(tiny_roberta), "--freeze-layers", "1", "--out", tmp_path / "again").code == 0
    assert states.stat().st_ino == written
    for file in ("predictions.csv", "model/model.safetensors"):
        assert (tmp_path / "alone" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


@pytest.mark.parametrize(("device", "kept"), [("cpu", True), ("cuda", False)])
def test_no_states_are_computed_for_a_device_that_does_not_read_them(
    tiny_roberta: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, device: str, kept: bool
) -> None:
    monkeypatch.setattr("empathy_kit.core.precision.find_device", lambda _: torch.device(device))
    config, corpus = configuration(tiny_roberta, freeze_layers=1), load_corpus("sample")
    plugins, split = choose_plugins(config, load_registry()), make_split(corpus, config.split, config.split_seed)
    prepared = prepare(config, plugins, corpus, split, *open_encoder(config))
    assert (prepared.states is not None, (cache / "states").exists()) == (kept, kept)


def test_a_file_of_states_that_is_cut_short_is_computed_anew(tiny_roberta: Path, tmp_path: Path) -> None:
    encoder, _ = load_encoder(str(tiny_roberta), local=True)
    make_unpadded(encoder)
    freeze(encoder, 1)
    posts = [(0, 5, 6, 2), (0, 7, 2)]
    whole = FrozenStates(encoder, 1, posts, tmp_path)
    content = whole.path.read_bytes()
    whole.path.write_bytes(content[:-8])
    again = FrozenStates(encoder, 1, [*posts, posts[0]], tmp_path)
    assert again.path == whole.path
    assert again.path.read_bytes() == content
    assert FrozenStates(encoder, 1, posts[:1], tmp_path).path != whole.path
    assert FrozenStates(encoder, 2, posts, tmp_path).path != whole.path


def test_states_that_do_not_fit_the_disk_are_one_line(
    tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, _ = load_encoder(str(tiny_roberta), local=True)
    make_unpadded(encoder)
    freeze(encoder, 1)
    path = FrozenStates(encoder, 1, [(0, 2)], tmp_path).path
    path.unlink()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KitError) as error:
        FrozenStates(encoder, 1, [(0, 2)], tmp_path)
    assert str(error.value) == f"freeze-layers 1: {path} cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_model_answers_in_bf16_as_it_did_when_its_states_were_kept(
    tiny_roberta: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kept states are float32: computed under autocast, they would move probabilities by up to .002."""
    monkeypatch.setattr("empathy_kit.core.precision.is_emulated", lambda *_: False)  # whatever this processor has
    config = configuration(tiny_roberta, freeze_layers=1, precision="bf16")
    list(run(config, load_registry(), tmp_path / "run"))
    assert any((cache / "states").iterdir())
    loaded = load(tmp_path / "run", load_registry())
    corpus = load_corpus("sample")
    pairs = [corpus.pairs[position] for position in make_split(corpus, config.split, config.split_seed).test]
    again = loaded.predictor.predict(loaded.tokenization.encode(pairs))
    for row, prediction in zip(read_predictions(tmp_path / "run"), again, strict=True):
        recorded = [float(row[f"ER_p{label}"]) for label in range(3)]
        assert prediction.probabilities["ER"].tolist() == pytest.approx(recorded, abs=1e-5)


def test_more_frozen_layers_than_there_are_is_one_line(tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]) -> None:
    said = command("run", *flags(tiny_roberta), "--freeze-layers", "3", "--out", tmp_path / "run")
    assert (said.code, said.out) == (2, "")
    assert "--freeze-layers 3: the encoder has 2 layers, expected 0 to 2" in said.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()
