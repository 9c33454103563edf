"""An encoder over posts laid end to end: no padding is computed at all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ARCHITECTURES = frozenset({"bert", "roberta", "xlm-roberta", "camembert"})
"""Encoders whose tokens meet in plain self-attention alone and take explicit position ids. Others are padded: a relative
position or a sliding window would count across the posts' borders in silence."""

_NAME = "empathy_kit_unpadded"


def make_unpadded(encoder: nn.Module) -> bool:
    """Prepare an encoder for `encode_unpadded`, or say that it cannot be. Padded batches still work as before."""
    config: Any = encoder.config
    if getattr(config, "model_type", None) not in ARCHITECTURES or config._attn_implementation not in {"sdpa", _NAME}:
        return False
    encoder.set_attn_implementation(_NAME)  # type: ignore[operator]
    return True


def encode_unpadded(
    encoder: nn.Module,
    ids: Tensor,  # (B, L) int64
    mask: Tensor,  # (B, L) bool, padding on the right
) -> Tensor:  # (B, L, D), zeros at the padding
    """Encoder states of each post by itself, from calls over nothing but real tokens: one for any batch of usual size."""
    lengths = mask.sum(1).tolist()
    positions = _positions(encoder, mask)
    # Looked up once: every look-up of its own would bring its own gradient, as large as the whole vocabulary's table.
    words = encoder.get_input_embeddings()(ids[mask])  # type: ignore[operator]
    states = []
    start = 0
    for posts in _calls(lengths):
        now = slice(start, start + sum(posts))
        start = now.stop
        states.append(
            encoder(
                inputs_embeds=words[None, now], position_ids=positions[None, now], post_lengths=posts
            ).last_hidden_state.squeeze(0)
        )
    return scatter(torch.cat(states), mask)


def lower_states(encoder: nn.Module, ids: Tensor, mask: Tensor, depth: int) -> Tensor:  # -> (N, D)
    """What the embeddings and the lowest layers say of the real tokens, end to end; no gradient, in eval mode."""
    parts: list[nn.Module] = [encoder.embeddings, *encoder.encoder.layer[:depth]]  # type: ignore[list-item,union-attr,index]
    training = [part.training for part in parts]
    try:
        with torch.no_grad():
            embeddings, *layers = (part.eval() for part in parts)
            states = embeddings(input_ids=ids[mask][None], position_ids=_positions(encoder, mask)[None])
            return _through(layers, states.squeeze(0), mask.sum(1).tolist())
    finally:
        for part, was in zip(parts, training, strict=True):
            part.train(was)


def upper_states(encoder: nn.Module, states: Tensor, mask: Tensor, depth: int) -> Tensor:  # (N, D), (B, L) -> (N, D)
    """What the other layers make of `lower_states`."""
    return _through(encoder.encoder.layer[depth:], states, mask.sum(1).tolist())  # type: ignore[union-attr,index]


def scatter(flat: Tensor, mask: Tensor) -> Tensor:  # (N, D), (B, L) -> (B, L, D)
    """Real tokens end to end -> padded posts, zeros at the padding."""
    return flat.new_zeros(*mask.shape, flat.shape[-1]).masked_scatter(mask[..., None], flat)


def _positions(encoder: nn.Module, mask: Tensor) -> Tensor:  # (B, L) -> (N,)
    return (mask.cumsum(1) - 1 + first_position(encoder))[mask]


def _through(layers: Iterable[nn.Module], flat: Tensor, lengths: list[int]) -> Tensor:  # (N, D) -> (N, D)
    done = []
    start = 0
    for posts in _calls(lengths):
        states = flat[None, start : start + sum(posts)]
        start += sum(posts)
        for layer in layers:
            states = layer(states, None, post_lengths=posts)
        done.append(states.squeeze(0))
    return torch.cat(done)


CALL = 4096
"""Tokens an encoder call: enough to keep the cores busy, few enough to bound the memory of a batch in inference."""


def _calls(lengths: list[int]) -> list[list[int]]:
    """Posts a call, in order."""
    calls: list[list[int]] = [[]]
    for length in lengths:
        if calls[-1] and sum(calls[-1]) + length > CALL:
            calls.append([])
        calls[-1].append(length)
    return calls


def first_position(encoder: nn.Module) -> int:
    """The position id of a post's first token: RoBERTa and its kin count from the padding id on."""
    tables = (module for name, module in encoder.named_modules() if name.endswith("position_embeddings"))
    padding = next((getattr(table, "padding_idx", None) for table in tables), None)
    return 0 if padding is None else int(padding) + 1


def _attention(
    module: nn.Module,
    query: Tensor,  # (1, H, N, D / H), as are key and value
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    post_lengths: list[int] | None = None,
    **settings: Any,
) -> tuple[Tensor, Tensor | None]:
    if post_lengths is None:
        padded: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return padded
    # A call a post: its kernel is so fast at these lengths that padding posts into one call costs more than the calls.
    # Split, not sliced: each slice's gradient would be a tensor of all posts' size. In float32: the kernel's backward pass in
    # bfloat16 is several times slower.
    dtype = query.dtype
    if dtype in (torch.bfloat16, torch.float16):
        query, key, value = (states.float() for states in (query, key, value))
    with torch.autocast(query.device.type, enabled=False):
        seen = [
            F.scaled_dot_product_attention(q, k, v, dropout_p=settings["dropout"], scale=settings["scaling"])
            for q, k, v in zip(*(torch.split(states, post_lengths, dim=2) for states in (query, key, value)), strict=True)
        ]
    return torch.cat(seen, dim=2).transpose(1, 2).to(dtype), None


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
