"""The model as one ONNX graph gives the numbers of the model, whatever its encoder, trunk, injector and heads are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_encoders import make
from torch import Tensor, nn

from empathy_kit.contracts import Encoded
from empathy_kit.core.encoder import load_encoder
from empathy_kit.core.heads import AttentionHead, LinearHead
from empathy_kit.core.model import Model
from empathy_kit.core.posts import PostEncoder
from empathy_kit.core.predictor import Predictor
from empathy_kit.core.rationales import PredictedRationale, TaggedRationale
from empathy_kit.core.tokens import TokenPair
from empathy_kit.core.trunk import GRUTrunk, MeanTrunk

pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")

from empathy_kit.core.portable import to_onnx
from empathy_kit.inference.export import largest_difference
from empathy_kit.inference.graph import GraphEngine

WIDTH, HIDDEN = 16, 12


class ThresholdHead(nn.Module):
    """One logit more than none: its probabilities are no softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(HIDDEN, 1)

    def forward(self, encoded: Encoded) -> Tensor:
        found: Tensor = self.linear(encoded.pooled)
        return found

    def probabilities(self, logits: Tensor) -> Tensor:
        return torch.cat([(-logits).sigmoid(), logits.sigmoid()], dim=1)


def pairs(number: int = 30) -> list[TokenPair]:
    draw = np.random.default_rng(0)

    def post(longest: int) -> list[int]:
        return [0, *draw.integers(5, 500, draw.integers(0, longest)).tolist(), 2]

    return [TokenPair(post(24), post(9)) for _ in range(number // 2)] + [TokenPair(post(4), post(24)) for _ in range(number // 2)]


# RoBERTa, and no rationale, are in the graphs of tests/inference, which an export compares with their runs as closely.
@pytest.mark.parametrize(
    ("architecture", "trunk", "layers", "injector"),
    [
        ("mpnet", "gru", 2, PredictedRationale(2, WIDTH)),
        ("bert", "mean", 2, TaggedRationale(2, WIDTH)),
        ("electra", "gru", 1, TaggedRationale(2, WIDTH)),  # padded
    ],
)
def test_a_graph_gives_the_models_probabilities_for_posts_of_any_length(
    tiny_roberta: Path, tmp_path: Path, architecture: str, trunk: str, layers: int, injector: nn.Module
) -> None:
    torch.manual_seed(0)
    folder = make(architecture, tmp_path / architecture, tiny_roberta, num_hidden_layers=layers)
    encoder = PostEncoder(load_encoder(str(folder), local=True)[0])
    heads = {"A": LinearHead(HIDDEN, 3), "B": AttentionHead(HIDDEN, 2), "C": ThresholdHead()}
    settings: dict[str, Any] = {"hidden": HIDDEN, "dropout": 0.1}
    body = MeanTrunk(encoder, injector, **settings) if trunk == "mean" else GRUTrunk(encoder, injector, layers=layers, **settings)
    predictor = Predictor(Model(body, heads), pad_id=1)
    expected = list(predictor.predict(pairs()))
    to_onnx(predictor.model, tmp_path / "model.onnx", spans=True)
    found = list(GraphEngine(tmp_path / "model.onnx", "ABC", pad_id=1, threads=2).predict(pairs()))
    assert largest_difference(found, expected) < 1e-6
    for one, pair in zip(found, pairs(), strict=True):
        assert one.evidence is not None
        assert one.evidence.shape == (2, len(pair.response))
    # The model itself is as it was.
    assert largest_difference(predictor.predict(pairs()), expected) == 0
