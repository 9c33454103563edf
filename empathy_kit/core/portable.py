"""The model as one ONNX graph: the same numbers, without packed sequences and without calls of another shape per batch."""

from __future__ import annotations

import logging
import types
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from empathy_kit.contracts import Encoded, Texts
from empathy_kit.core import trunk as trunks
from empathy_kit.core.encoder import sample_posts
from empathy_kit.core.model import Model
from empathy_kit.core.posts import PostEncoder
from empathy_kit.core.unpadded import first_position

INPUTS = ("seeker", "seeker_mask", "response", "response_mask")
"""Of the graph: (B, Ls) int64, (B, Ls) bool, (B, L) int64, (B, L) bool; padding on the right."""

EVIDENCE = "evidence"  # the output of the span head, (B, T, L); the others are named "p_TASK", (B, C)
OPSET = 23  # the first that has attention as one operator
_FAR = 1 << 20  # further than any post is long

_UNSEEN = 50.0
"""Taken from the score of a token that is not to be seen. exp(-50) is 2e-22: below float32's digits by far, even where such a
token's own score is 30 above all that are seen, which those of a post's first and last token prevent. And it is a normal number:
products with the denormal ones that -inf or -1e9 leave took attention twice as long, and the whole model a fifth."""


class _Graph(nn.Module):
    """Texts as plain tensors -> probabilities of every task, and of every response token to be evidence."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, seeker: Tensor, seeker_mask: Tensor, response: Tensor, response_mask: Tensor) -> tuple[Tensor, ...]:
        output = self.model(Texts(seeker, seeker_mask, response, response_mask))
        found = [head.probabilities(output.logits[name]).float() for name, head in self.model.heads.items()]  # type: ignore[operator]
        if output.span_logits is not None:
            found.append(output.span_logits.float().sigmoid())
        return tuple(found)


def to_onnx(model: Model, path: Path, *, spans: bool) -> None:
    """Write a model in evaluation mode as a graph of standard ONNX operators, in float32.

    Args:
        model: what `Predictor` runs, on the CPU.
        path: the file, which holds the weights too.
        spans: whether the model has a span head.
    """
    encoder = next(module.model for module in model.modules() if isinstance(module, PostEncoder))  # which knows its words
    seeker, response = (sample_posts(encoder, lengths) for lengths in ((9, 6, 4), (7, 11, 3)))
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    outputs = [f"p_{name}" for name in model.heads] + ([EVIDENCE] if spans else [])
    with _quiet(), _rewritten(model), torch.no_grad():
        program: Any = torch.onnx.export(
            _Graph(model).eval(),
            (*seeker, *response),
            input_names=list(INPUTS),
            output_names=outputs,
            dynamic_shapes=[sizes] * len(INPUTS),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
        )
    program.save(path, external_data=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter and its parts tell of their progress."""
    loggers = [logging.getLogger(name) for name in ("torch", "onnxscript", "onnx_ir", "onnxruntime")]
    levels = [each.level for each in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in loggers:
            each.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)


@contextmanager
def _rewritten(model: Model) -> Iterator[None]:
    """The kit's own parts in a form that the exporter can follow; other people's modules as they are."""
    changed: list[tuple[Any, str]] = []
    sort, trunks.real_first = trunks.real_first, _real_first
    try:
        for module in model.modules():
            if isinstance(module, PostEncoder):
                new: dict[str, Any] = {"_encode": _encode_side, "forward": _encode_pairs if module.unpadded else _encode_both}
            elif isinstance(module, trunks.GRUTrunk):
                new = {"recur": _recur}
            else:
                continue
            for name, function in new.items():
                setattr(module, name, types.MethodType(function, module))
                changed.append((module, name))
        yield
    finally:
        trunks.real_first = sort
        for module, name in changed:
            delattr(module, name)


def _encode_pairs(posts: PostEncoder, texts: Texts) -> tuple[Tensor, Tensor]:  # -> (B, Ls, D), (B, L, D)
    """Both posts of a pair laid end to end in one row; each attends to itself alone.

    Rows of pairs of like length have next to no padding, where two padded posts would have a quarter. All layers work on the
    rows, and none has to move a token.
    """
    seekers, responses = texts.seeker_mask.sum(1), texts.response_mask.sum(1)  # (B,)
    row, first, place = _laid_out(texts, seekers, responses)  # (B, S)
    ids = torch.cat([texts.seeker, texts.response], dim=1).gather(1, place)
    real = torch.arange(row, device=ids.device) < (seekers + responses)[:, None]  # (B, S)
    at = torch.arange(row, device=ids.device)
    positions = torch.where(first, at, at - seekers[:, None]) * real  # of padding: any that exists
    # Padding attends to the response, and no row of scores is empty; no post attends to padding.
    seen = (first[:, :, None] == first[:, None, :]) & real[:, None, :]  # (B, S, S)
    states = _through(posts.model, ids, positions, seen)  # (B, S, D)
    shift = (torch.arange(texts.response.shape[1], device=ids.device) + seekers[:, None]).clamp(max=row - 1)  # (B, L)
    seeker_at = torch.arange(texts.seeker.shape[1], device=ids.device).clamp(max=row - 1).expand_as(texts.seeker)
    return _taken(states, seeker_at, texts.seeker_mask), _taken(states, shift, texts.response_mask)


def _encode_both(posts: PostEncoder, texts: Texts) -> tuple[Tensor, Tensor]:  # -> (B, Ls, D), (B, L, D)
    """Each side by itself, where the encoder has to be called as it is."""
    return posts.seeker(texts), posts.response(texts)


def _laid_out(texts: Texts, seekers: Tensor, responses: Tensor) -> tuple[int, Tensor, Tensor]:
    """The longest pair's tokens, S; which places of a row are the seeker's, and where their tokens stand now, both (B, S)."""
    width = texts.seeker.shape[1]
    row: Any = (seekers + responses).max().item()  # an int to torch, a symbol to its exporter
    torch._check(row >= 2)  # type: ignore[no-untyped-call]
    torch._check(row <= width + texts.response.shape[1])  # type: ignore[no-untyped-call]
    at = torch.arange(row, device=texts.seeker.device)
    first = at < seekers[:, None]
    place = torch.where(first, at, at - seekers[:, None] + width)
    return row, first, place.clamp(max=width + texts.response.shape[1] - 1)


def _encode_side(posts: PostEncoder, ids: Tensor, mask: Tensor) -> Tensor:  # (B, L), (B, L) -> (B, L, D)
    """Posts padded to their longest."""
    if not posts.unpadded:
        states: Tensor = posts.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return torch.where(mask[..., None], states, 0)
    at = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    states = _through(posts.model, ids, at * mask, mask[:, None].expand(-1, ids.shape[1], -1))
    return torch.where(mask[..., None], states, 0)


def _taken(states: Tensor, places: Tensor, mask: Tensor) -> Tensor:  # (B, S, D), (B, L), (B, L) -> (B, L, D)
    return torch.where(mask[..., None], _picked(states, places), 0)


def _picked(states: Tensor, places: Tensor) -> Tensor:  # (B, S, D), (B, L) int64 -> (B, L, D)
    """Whole states by their places: `Tensor.gather` would become an operator that moves number by number."""
    batch, row, width = states.shape
    starts = torch.arange(batch, device=states.device)[:, None] * row
    return states.flatten(0, 1).index_select(0, (starts + places).flatten()).reshape(*places.shape, width)


def _through(encoder: Any, ids: Tensor, positions: Tensor, seen: Tensor) -> Tensor:  # (B, S), (B, S), (B, S, S) -> (B, S, D)
    """An encoder of BERT's family, or MPNet, with attention as one operator."""
    words = encoder.get_input_embeddings()(ids)
    states: Tensor = encoder.embeddings(inputs_embeds=words, position_ids=positions + first_position(encoder))
    if hasattr(encoder.encoder, "compute_position_bias"):
        distance = positions[:, None, :] - positions[:, :, None]
        bucket = encoder.encoder.relative_position_bucket(distance, num_buckets=encoder.config.relative_attention_num_buckets)
        bias = encoder.encoder.relative_attention_bias(bucket).permute(0, 3, 1, 2)  # (B, heads, S, S)
        mask = torch.where(seen[:, None], bias, -_UNSEEN)
    else:
        mask = torch.where(seen[:, None], 0.0, -_UNSEEN)  # (B, 1, S, S)
    batch, row = ids.shape
    states = states.flatten(0, 1)  # (B * S, D): a product of two matrices takes its bias along
    for layer in encoder.encoder.layer:
        mpnet = hasattr(layer.attention, "attn")
        inner = layer.attention.attn if mpnet else layer.attention.self
        names = ("q", "k", "v") if mpnet else ("query", "key", "value")
        query, key, value = (getattr(inner, name)(states).reshape(batch, row, -1) for name in names)
        heads = inner.num_attention_heads
        seen_by = torch.onnx.ops.attention(query, key, value, attn_mask=mask, q_num_heads=heads, kv_num_heads=heads)
        found = seen_by[0].flatten(0, 1)
        norm = layer.attention.LayerNorm if mpnet else None
        states = norm(inner.o(found) + states) if norm else layer.attention.output(found, states)
        states = layer.output(layer.intermediate(states), states)
    return states.reshape(batch, row, -1)


def _real_first(states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:  # (B, S, D), (B, S) -> the same
    """As `trunk.real_first`, with the padding left on: what follows skips it."""
    at = torch.arange(mask.shape[1], device=mask.device)
    order = torch.where(mask, at, at + _FAR).argsort(dim=1)  # no two are equal, so that it need not be stable
    return _picked(states, order), mask.gather(1, order)


def _recur(trunk: trunks.GRUTrunk, states: Tensor, mask: Tensor) -> Encoded:  # (B, S, D), (B, S)
    """ONNX's own GRU, which ends each row where its length says."""
    gru = trunk.gru
    lengths = mask.sum(1).to(torch.int32)
    found = states.transpose(0, 1)
    for layer in range(gru.num_layers):
        # Its gates are update, reset, candidate; torch's are reset, update, candidate.
        input_weight, weight, input_bias, bias = (torch.cat(_swapped(part.chunk(3))) for part in gru.all_weights[layer])
        sequence, last = torch.onnx.ops.symbolic_multi_out(
            "GRU",
            (found, input_weight[None], weight[None], torch.cat([input_bias, bias])[None], lengths),
            {"hidden_size": gru.hidden_size, "linear_before_reset": 1},
            dtypes=(torch.float32, torch.float32),
            shapes=((found.shape[0], 1, found.shape[1], gru.hidden_size), (1, found.shape[1], gru.hidden_size)),
        )
        found = sequence.squeeze(1)
    return Encoded(pooled=last.squeeze(0), sequence=found.transpose(0, 1), mask=mask)


def _swapped(parts: Sequence[Tensor]) -> list[Tensor]:
    return [parts[1], parts[0], parts[2]]
