"""What every trunk may rely on: states of both posts, zero at the padding, and copies that stand alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from empathy_kit.contracts import Texts
from empathy_kit.core.encoder import load_encoder
from empathy_kit.core.posts import PostEncoder


@pytest.fixture
def encoder(tiny_roberta: Path) -> PostEncoder:
    return PostEncoder(load_encoder(str(tiny_roberta), local=True)[0])


def texts() -> Texts:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 600, (2, 3, 7), generator=generator)
    mask = torch.arange(7) < torch.tensor([[7, 2, 4], [1, 7, 5]])[..., None]
    return Texts(ids[0].where(mask[0], 1), mask[0], ids[1].where(mask[1], 1), mask[1])


def test_a_copy_has_the_same_weights_and_learns_alone(encoder: PostEncoder) -> None:
    encoder.eval()
    twin = encoder.copy()
    before = encoder.response(texts())
    assert torch.equal(twin.response(texts()), before)
    twin.response(texts()).sum().backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert torch.equal(encoder.response(texts()), before)


def test_a_frozen_copy_never_learns_and_never_drops_out(encoder: PostEncoder) -> None:
    twin = encoder.copy(frozen=True).train()
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    assert not any(part.training for part in twin.model.modules())
    assert torch.equal(twin.seeker(texts()), twin.seeker(texts()))
    assert all(parameter.requires_grad for parameter in encoder.parameters())
