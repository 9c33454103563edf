"""Any Hugging Face encoder: trained, saved, loaded again, and what it says of a pair depends on that pair alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_encoders import ARCHITECTURES, make

from empathy_kit.config import RunConfig, configure
from empathy_kit.contracts import Texts
from empathy_kit.core import unpadded as unpadded_module
from empathy_kit.core.encoder import load_encoder, rebuild_encoder
from empathy_kit.core.posts import PostEncoder
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split
from empathy_kit.plugins import load_registry
from empathy_kit.runs.load import load
from empathy_kit.runs.train import run

LAID_END_TO_END = {"bert", "roberta", "mpnet"}


@pytest.fixture(scope="module")
def encoders(tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return {name: make(name, folder / name, tiny_roberta) for name in ARCHITECTURES}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tenth of the sample: every level of every task is in it often enough to be split."""
    path = tmp_path_factory.mktemp("table") / "pairs.jsonl"
    rows = [
        {
            "seeker_post": pair.seeker,
            "response_post": pair.response,
            "seeker_id": pair.seeker_id,
            **{name: str(number % 3) for name in ("ER", "EX", "IP")},
        }
        for number, pair in enumerate(load_corpus("sample").pairs[:60])
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def texts(lengths: tuple[tuple[int, int], ...] = ((7, 2), (3, 9), (5, 5)), *, longest: int = 9) -> Texts:
    sides = []
    for side in (0, 1):
        generator = torch.Generator().manual_seed(side)
        ids = torch.randint(5, 600, (len(lengths), 9), generator=generator)[:, :longest]
        ids = torch.nn.functional.pad(ids, (0, longest - ids.shape[1]))
        mask = torch.arange(longest) < torch.tensor([length[side] for length in lengths])[:, None]
        sides += [ids.where(mask, 1), mask]
    return Texts(*sides)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_read_by_the_post_alone(encoders: dict[str, Path], architecture: str) -> None:
    model, _ = load_encoder(str(encoders[architecture]), local=True, attention_dropout=0.0)
    encoder = PostEncoder(model).eval()
    assert encoder.width == 16
    assert encoder.unpadded == (architecture in LAID_END_TO_END)
    assert encoder.warning is None
    batch = texts()
    with torch.inference_mode():
        seeker, response = encoder(batch)
        for side, states, mask in ((0, seeker, batch.seeker_mask), (1, response, batch.response_mask)):
            assert states.shape == (3, 9, 16)
            assert not states[~mask].any()
            for row, length in enumerate(mask.sum(1).tolist()):
                now = slice(row, row + 1)
                sides = (batch.seeker, batch.seeker_mask, batch.response, batch.response_mask)
                own = Texts(*(part[now, :length] if at // 2 == side else part[now] for at, part in enumerate(sides)))
                alone = encoder.response(own) if side else encoder.seeker(own)
                torch.testing.assert_close(alone[0], states[row, :length], rtol=0, atol=2e-5)
        wide = texts(longest=14)
        torch.testing.assert_close(encoder.response(wide)[:, :9], response, rtol=0, atol=2e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_is_trained_saved_loaded_and_predicts(
    encoders: dict[str, Path], table: Path, tmp_path: Path, architecture: str
) -> None:
    changes = {"epochs": 1, "threads": 1, "max_tokens": 16, "options": {"trunk.hidden": 8, "trunk.layers": 1}}
    config = configure(RunConfig(), {"data": str(table), "encoder": str(encoders[architecture]), **changes})
    list(run(config, load_registry(), tmp_path / "run"))
    loaded = load(tmp_path / "run", load_registry())
    before = load_encoder(str(encoders[architecture]), local=True)[0].state_dict()
    after = {name.removeprefix("trunk.encoder.model."): weight for name, weight in loaded.predictor.model.state_dict().items()}
    assert any(not torch.equal(weight, after[name]) for name, weight in before.items() if name in after)  # it was trained
    corpus = load_corpus(str(table))
    said = list(loaded.predictor.predict(loaded.tokenization.encode(corpus.pairs)))
    with (tmp_path / "run" / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    test = make_split(corpus, config.split, config.split_seed).test
    for name in ("ER", "EX", "IP"):
        found = [[float(share) for share in said[at].probabilities[name]] for at in test]
        recorded = [[float(row[f"{name}_p{level}"]) for level in range(3)] for row in rows]
        np.testing.assert_allclose(found, recorded, rtol=0, atol=2e-5)
    rebuilt, _ = rebuild_encoder(tmp_path / "run" / "model")
    assert {name: weight.shape for name, weight in rebuilt.state_dict().items()} == {
        name: after[name].shape for name in rebuilt.state_dict()
    }


@pytest.mark.parametrize("architecture", sorted(LAID_END_TO_END))
@pytest.mark.parametrize("fault", ["wrong", "raises"])
def test_a_transformers_that_turned_the_fast_path_wrong_is_noticed_and_padded(
    encoders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, architecture: str, fault: str
) -> None:
    model, _ = load_encoder(str(encoders[architecture]), local=True)
    expected = PostEncoder(model).eval()
    real = unpadded_module._attend

    def turned(*arguments: Any, **settings: Any) -> torch.Tensor:
        if fault == "raises":
            raise TypeError("another signature")
        return real(*arguments, **settings) * 3

    monkeypatch.setattr(unpadded_module, "_attend", turned)
    state = torch.get_rng_state()
    encoder = PostEncoder(model).eval()
    assert torch.equal(torch.get_rng_state(), state)
    assert not encoder.unpadded
    assert encoder.warning is not None
    if fault == "raises":
        assert encoder.warning == "posts are padded, because laid end to end they raise TypeError"
    else:
        assert encoder.warning.startswith("posts are padded, because laid end to end they give other states (relative deviation ")
    found = encoder(texts())
    monkeypatch.undo()
    for one, other in zip(found, expected(texts()), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5)


def test_a_default_setting_is_never_refused_and_one_that_cannot_be_is(encoders: dict[str, Path], tiny_roberta: Path) -> None:
    for folder in encoders.values():
        load_encoder(str(folder), local=True, attention_dropout=0.0)
    assert load_encoder(str(encoders["distilbert"]), local=True, attention_dropout=0.25)[0].config.attention_dropout == 0.25
