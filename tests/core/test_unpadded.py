"""Posts laid end to end in one encoder call say what each would say by itself, in every architecture that may do so."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from empathy_kit.core.unpadded import ARCHITECTURES, encode_unpadded, make_unpadded

SMALL = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 20,
}
LENGTHS = torch.tensor([5, 12, 1, 12])


def small(architecture: str, **changes: object) -> nn.Module:
    torch.manual_seed(0)
    config = AutoConfig.for_model(architecture, **SMALL, pad_token_id=1, **changes)
    encoder: nn.Module = AutoModel.from_config(config, attn_implementation="sdpa")
    for parameter in encoder.parameters():  # of the default spread, attention and positions hardly count
        nn.init.normal_(parameter, std=0.3)
    return encoder


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_states_are_those_of_a_padded_call(architecture: str) -> None:
    encoder = small(architecture).eval()
    mask = torch.arange(12) < LENGTHS[:, None]
    ids = torch.where(mask, torch.randint(2, 40, mask.shape, generator=torch.Generator().manual_seed(0)), 1)
    padded = encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state * mask[..., None]
    assert make_unpadded(encoder)
    assert (encode_unpadded(encoder, ids, mask) - padded).abs().max() <= 1e-5
    again = encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state * mask[..., None]
    assert torch.equal(again, padded)  # a prepared encoder still takes a padded batch


def test_attention_dropout_is_drawn_in_training_alone() -> None:
    encoder = small("bert", attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0)
    make_unpadded(encoder)
    ids, mask = torch.full((2, 6), 7), torch.ones(2, 6, dtype=torch.bool)
    assert not torch.equal(encode_unpadded(encoder, ids, mask), encode_unpadded(encoder, ids, mask))
    encoder.eval()
    assert torch.equal(encode_unpadded(encoder, ids, mask), encode_unpadded(encoder, ids, mask))


def test_an_architecture_with_another_attention_is_left_alone() -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model("deberta-v2", **SMALL)
    encoder = AutoModel.from_config(config)
    before = encoder.config._attn_implementation
    assert not make_unpadded(encoder)
    assert encoder.config._attn_implementation == before
