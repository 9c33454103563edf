"""An encoder over posts laid end to end: no padding is computed at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_NAME = "empathy_kit_unpadded"

Bias = dict[int, Tensor] | None  # a post's length to what is added to its attention scores, (1, heads, length, length)
Layer = Callable[[Any, Tensor, list[int], Bias], Tensor]  # layer, states (1, N, D), posts' lengths, bias -> states


def _bert_layer(layer: Any, states: Tensor, posts: list[int], bias: Bias) -> Tensor:
    found: Tensor = layer(states, None, post_lengths=posts)  # through `_attention`
    return found


def _mpnet_layer(layer: Any, states: Tensor, posts: list[int], bias: Bias) -> Tensor:
    """As transformers' MPNetLayer, which knows one attention alone, and that over a padded batch."""
    outer = layer.attention
    inner = outer.attn
    shape = (*states.shape[:-1], inner.num_attention_heads, inner.attention_head_size)
    query, key, value = (project(states).view(shape).transpose(1, 2) for project in (inner.q, inner.k, inner.v))
    seen = _attend(query, key, value, posts, dropout=inner.dropout.p if inner.training else 0.0, scale=None, bias=bias)
    states = outer.LayerNorm(outer.dropout(inner.o(seen.flatten(2))) + states)
    found: Tensor = layer.output(layer.intermediate(states), states)
    return found


_LAYERS: dict[str, Layer] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert"), _bert_layer),
    "mpnet": _mpnet_layer,
}
ARCHITECTURES = frozenset(_LAYERS)
"""Encoders whose tokens meet in attention alone, and take explicit position ids. Others are padded: a convolution, or a window
over neighbouring tokens, would silently count across the posts' borders."""


def make_unpadded(encoder: nn.Module) -> bool:
    """Prepare an encoder for `encode_unpadded`, or report that it cannot be. Padded batches still work as before."""
    config: Any = encoder.config
    layer = _LAYERS.get(getattr(config, "model_type", ""))
    if layer is _bert_layer:
        if config._attn_implementation not in {"sdpa", _NAME}:
            return False
        encoder.set_attn_implementation(_NAME)  # type: ignore[operator]
    return layer is not None


def encode_unpadded(
    encoder: nn.Module,
    ids: Tensor,  # (B, L) int64
    mask: Tensor,  # (B, L) bool, padding on the right
) -> Tensor:  # (B, L, D), zeros at the padding
    """Encoder states of each post by itself, from calls over nothing but real tokens: one for any batch of usual size."""
    layers = encoder.encoder.layer  # type: ignore[union-attr]
    return scatter(_through(encoder, layers, _embedded(encoder, ids, mask), mask), mask)  # type: ignore[arg-type]


def lower_states(encoder: nn.Module, ids: Tensor, mask: Tensor, depth: int) -> Tensor:  # -> (N, D)
    """States of the real tokens after the embeddings and the lowest layers, end to end; without gradient.

    These are in eval mode, where `freeze` has put them. In float32 under autocast too, so that the states are the same whether
    they are computed now or were kept in a file.
    """
    with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
        return _through(encoder, encoder.encoder.layer[:depth], _embedded(encoder, ids, mask), mask)  # type: ignore[union-attr,index]


def upper_states(encoder: nn.Module, states: Tensor, mask: Tensor, depth: int) -> Tensor:  # (N, D), (B, L) -> (N, D)
    """What the other layers make of `lower_states`."""
    return _through(encoder, encoder.encoder.layer[depth:], states, mask)  # type: ignore[union-attr,index]


def scatter(flat: Tensor, mask: Tensor) -> Tensor:  # (N, D), (B, L) -> (B, L, D)
    """Real tokens end to end -> padded posts, zeros at the padding."""
    return flat.new_zeros(*mask.shape, flat.shape[-1]).masked_scatter(mask[..., None], flat)


def _embedded(encoder: Any, ids: Tensor, mask: Tensor) -> Tensor:  # (B, L), (B, L) -> (N, D)
    positions = (mask.cumsum(1) - 1 + first_position(encoder))[mask]
    # Looked up once: every look-up of its own would bring its own gradient, as large as the whole vocabulary's table.
    words = encoder.get_input_embeddings()(ids[mask])
    found: Tensor = encoder.embeddings(inputs_embeds=words[None], position_ids=positions[None])
    return found.squeeze(0)


def _through(encoder: Any, layers: Iterable[Any], flat: Tensor, mask: Tensor) -> Tensor:  # (N, D), (B, L) -> (N, D)
    lengths = mask.sum(1).tolist()
    run, bias = _LAYERS[encoder.config.model_type], _position_bias(encoder, lengths)
    done = []
    start = 0
    for posts in calls(lengths):
        states = flat[None, start : start + sum(posts)]
        start += sum(posts)
        for layer in layers:
            states = run(layer, states, posts, bias)
        done.append(states.squeeze(0))
    return torch.cat(done)


def _position_bias(encoder: Any, lengths: list[int]) -> Bias:
    """MPNet's: the same function of two tokens' distance in every layer and every post."""
    if not hasattr(encoder.encoder, "compute_position_bias"):
        return None
    whole: Tensor = encoder.encoder.compute_position_bias(torch.empty(1, max(lengths), device=encoder.device))
    return {length: whole[:, :, :length, :length].contiguous() for length in set(lengths)}


CALL = 4096
"""Tokens per encoder call: enough to keep the cores busy, few enough to bound the memory of a batch in inference."""


def calls(lengths: list[int]) -> list[list[int]]:
    """The lengths of each call's posts, in order."""
    found: list[list[int]] = [[]]
    for length in lengths:
        if found[-1] and sum(found[-1]) + length > CALL:
            found.append([])
        found[-1].append(length)
    return found


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
    """What the encoders of BERT's family call in each layer; without lengths it is transformers' own."""
    if post_lengths is None:
        padded: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **settings)
        return padded
    return _attend(query, key, value, post_lengths, dropout=settings["dropout"], scale=settings["scaling"], bias=None), None


def _attend(
    query: Tensor,  # (1, H, N, D / H), as are key and value
    key: Tensor,
    value: Tensor,
    posts: list[int],
    *,
    dropout: float,
    scale: float | None,
    bias: Bias,
) -> Tensor:  # (1, N, H, D / H)
    """Attention of each post to itself."""
    # One call per post: its kernel is so fast at these lengths that padding posts into one call costs more than the calls.
    # Split, not sliced: each slice's gradient would be a tensor of all posts' size. In float32: the kernel's backward pass in
    # bfloat16 is several times slower.
    dtype = query.dtype
    if dtype in (torch.bfloat16, torch.float16):
        query, key, value = (states.float() for states in (query, key, value))
    with torch.autocast(query.device.type, enabled=False):
        parts = zip(*(torch.split(states, posts, dim=2) for states in (query, key, value)), strict=True)
        masks = [None if bias is None else bias[length].to(query.dtype) for length in posts]
        seen = [
            F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, scale=scale)
            for (q, k, v), mask in zip(parts, masks, strict=True)
        ]
    return torch.cat(seen, dim=2).transpose(1, 2).to(dtype)


AttentionInterface.register(_NAME, _attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
