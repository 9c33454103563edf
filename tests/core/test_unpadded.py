"""Posts laid end to end in one encoder call say what each would say by itself, in every architecture that may do so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
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
    encoder: nn.Module = AutoModel.from_config(config, attn_implementation="eager" if architecture == "mpnet" else "sdpa")
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


def test_no_posts_gradient_is_as_large_as_the_batch() -> None:
    """A slice's would be: sixty posts a batch would fill it with zeros sixty times a layer."""
    encoder = small("bert")
    make_unpadded(encoder)
    waiting = [encode_unpadded(encoder, torch.full((3, 6), 7), torch.ones(3, 6, dtype=torch.bool)).grad_fn]
    seen = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    names = [node.name() for node in seen]
    assert sum(name.startswith("SplitWithSizes") for name in names) == 3 * SMALL["num_hidden_layers"]
    # One where the words are looked up, and none a post.
    assert sum(name.startswith("Slice") for name in names) <= 1


def test_attention_is_in_float32_under_autocast() -> None:
    encoder = small("bert").eval()
    make_unpadded(encoder)
    ids, mask = torch.randint(2, 40, (3, 9), generator=torch.Generator().manual_seed(0)), torch.ones(3, 9, dtype=torch.bool)
    types = set()
    real = F.scaled_dot_product_attention

    def watched(query: Tensor, *arguments: Any, **settings: Any) -> Tensor:
        types.add(query.dtype)
        return real(query, *arguments, **settings)

    with pytest.MonkeyPatch.context() as patch, torch.autocast("cpu", dtype=torch.bfloat16):
        patch.setattr(F, "scaled_dot_product_attention", watched)
        half = encode_unpadded(encoder, ids, mask)
    assert types == {torch.float32}
    assert (half - encode_unpadded(encoder, ids, mask)).abs().mean() < 0.02  # of states that are about 1


def test_an_encoder_in_double_precision_stays_in_it() -> None:
    encoder = small("bert").double().eval()
    mask = torch.arange(12) < LENGTHS[:, None]
    ids = torch.where(mask, torch.randint(2, 40, mask.shape, generator=torch.Generator().manual_seed(0)), 1)
    padded = encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state * mask[..., None]
    make_unpadded(encoder)
    states = encode_unpadded(encoder, ids, mask)
    assert states.dtype == torch.float64
    assert (states - padded).abs().max() <= 1e-12


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
