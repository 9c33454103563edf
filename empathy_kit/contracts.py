"""Frozen values that cross the plugin boundary.

Standard library only, so that a plugin module can be imported, listed and inspected for its options without torch.
Shapes: B pairs, Ls seeker tokens, L response tokens, S tokens of the whole sequence, T tasks, C labels of a task, D encoder
width, H trunk width, N items.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor, device
    from torch.nn import Module

NAME_PATTERN = re.compile(r"[a-z][a-z0-9-]*")

GoldAccess = Literal["never", "train", "always"]
"""Where an injector may see annotated spans: "never", "train", or "always" (which makes the run an ORACLE)."""


@dataclass(frozen=True)
class Task:
    """All that a builder may know of a task; the counts come from the training part alone, labelled pairs only."""

    name: str
    labels: tuple[str, ...]  # lowest first
    class_counts: tuple[int, ...]

    @property
    def num_classes(self) -> int:
        """The number of labels, C."""
        return len(self.labels)


@dataclass(frozen=True, repr=False)
class Texts:
    """A batch of pairs as the model sees it: token ids, padded on the right. Without a repr: ids decode back to posts."""

    seeker: Tensor  # (B, Ls) int64
    seeker_mask: Tensor  # (B, Ls) bool: True at real tokens
    response: Tensor  # (B, L) int64
    response_mask: Tensor  # (B, L) bool

    def to(self, device: device) -> Texts:
        """The same batch on a device."""
        return Texts(*(getattr(self, entry.name).to(device, non_blocking=True) for entry in fields(self)))

    def __len__(self) -> int:
        return len(self.seeker)


@dataclass(frozen=True)
class Encoded:
    """What the trunk hands to a head."""

    pooled: Tensor  # (B, H) float32: one state per pair; the GRU trunk's is the last layer's, after the last real token
    sequence: Tensor  # (B, S, H) float32: the trunk's output at every token, zero where mask is False
    mask: Tensor  # (B, S) bool: True at real tokens, of which the first of each row is one; padding is between or after them


@dataclass(frozen=True)
class Injection:
    """What a rationale injector hands to the trunk."""

    states: Tensor  # (B, K, D): rationale embeddings, which the trunk reads after the response; K may be 0
    mask: Tensor  # (B, K) bool: True where a state is to be read
    span_logits: Tensor | None = None  # (B, T, L): how likely each response token is evidence for each task


def _check(spec: Loss | Rationale | Head | Sampler | Trunk) -> None:
    name: object = spec.name
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise ValueError(
            f"{type(spec).__name__} name {spec.name!r}: expected lower-case letters, digits and hyphens, first a letter"
        )
    if keyword.iskeyword(name):
        raise ValueError(f"{type(spec).__name__} name {name!r}: a keyword of Python, expected another name")
    build: object = spec.build
    if not callable(build):
        raise TypeError(f"{type(spec).__name__} {spec.name!r}: build is a {type(build).__name__}, expected a function")


@dataclass(frozen=True)
class Loss:
    """A loss for one task.

    ``build(task, *, options)`` returns ``f(logits, target) -> losses`` with logits (N, C) float32, target (N,) int64 and
    losses (N,) float32: an ``nn.Module`` where the loss learns, any function otherwise. N may be 0; items are independent;
    value and gradient are finite for ``|logit|`` up to 1e4. The kit masks, casts, moves and reduces, so a loss has no
    ``reduction``, ``ignore_index`` or ``device``, and never sees padding or a missing label.
    """

    name: str
    build: Callable[..., Callable[[Tensor, Tensor], Tensor]]

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Rationale:
    """A rationale injector.

    ``build(tasks, width, *, options)`` returns an ``nn.Module``:
    ``(response (B, L, D), mask (B, L), gold (B, T, L) bool or None) -> Injection``. It works with ``gold=None``, and its
    output does not change with padding or with the other pairs of the batch. ``gold`` sets where the kit hands over the
    annotated spans. The option name ``weight`` belongs to the kit (the span loss's weight).
    """

    name: str
    build: Callable[..., Module]
    gold: GoldAccess = "train"

    def __post_init__(self) -> None:
        _check(self)
        if self.gold not in get_args(GoldAccess):
            raise ValueError(f"Rationale {self.name!r}: gold is {self.gold!r}, expected 'never', 'train' or 'always'")


@dataclass(frozen=True)
class Head:
    """A head for one task.

    ``build(task, width, *, options)`` returns an ``nn.Module``: ``Encoded -> logits (B, K)`` with a method
    ``probabilities(logits) -> (B, C)`` and, if it does not learn through the run's loss, a
    ``criterion(logits (N, K), target (N,)) -> (N,)`` of its own.
    """

    name: str
    build: Callable[..., Module]

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Sampler:
    """Which training pairs an epoch shows.

    ``build(tasks, labels, *, options)``, labels (N, T) int64 and -1 where missing, returns
    ``f(generator) -> (M,) int64``: positions of training pairs, repeats allowed, M at least 1. The generator (a
    ``torch.Generator`` on the CPU) alone decides; the kit puts the pairs into batches, and their order does not count.
    """

    name: str
    build: Callable[..., Callable[[Any], Tensor]]

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Trunk:
    """What is between the posts and the heads.

    ``build(encoder, injector, *, options)`` returns an ``nn.Module`` with an attribute ``width`` (H):
    ``(Texts, gold (B, T, L) bool or None) -> (Encoded, span_logits (B, T, L) or None)``. The encoder is the kit's post encoder:
    ``encoder(texts)`` gives the states of both posts, (B, Ls, D) and (B, L, D), zero at the padding; ``encoder.seeker(texts)``
    and ``encoder.response(texts)`` those of one side; ``encoder.width`` is D; ``encoder.copy()`` an independent encoder with the
    same weights, ``encoder.copy(frozen=True)`` one that is never trained. The injector is the run's rationale injector, called as
    ``injector(response, response_mask, gold)``; the trunk reads its ``states`` and returns its ``span_logits``. Its output does
    not change with padding or with the other pairs of the batch.
    """

    name: str
    build: Callable[..., Module]

    def __post_init__(self) -> None:
        _check(self)


Spec = Loss | Rationale | Head | Sampler | Trunk


def first_line(build: Callable[..., Any]) -> str:
    """The first line of a builder's docstring, which `plugins list` shows; empty where it is missing."""
    return (written(build).__doc__ or "").strip().partition("\n")[0]


def written(build: Callable[..., Any]) -> Callable[..., Any]:
    """The function that a builder is made of, which has its docstring and its module: a partial has those of `functools`."""
    while isinstance(build, partial):
        build = build.func
    return build
