"""Frozen values that cross the plugin boundary.

Standard library only, so that a plugin module can be imported, listed and asked for its options without torch.
Shapes: B pairs, L response tokens, S tokens of the whole sequence, T mechanisms, C levels, D encoder width, H trunk width.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

NAME_PATTERN = re.compile(r"[a-z][a-z0-9-]*")

GoldAccess = Literal["never", "train", "always"]
"""Where an injector may see annotated spans: "never", "train", or "always" (which makes the run an ORACLE)."""


@dataclass(frozen=True)
class Task:
    """All that a builder may know of a mechanism; the counts come from the training part alone."""

    name: str
    labels: tuple[str, ...]
    class_counts: tuple[int, ...]

    @property
    def num_classes(self) -> int:
        """The number of levels, C."""
        return len(self.labels)


@dataclass(frozen=True)
class Encoded:
    """What the trunk hands to a head."""

    pooled: Tensor  # (B, H) float32: the last GRU layer's state after the last real token
    sequence: Tensor  # (B, S, H) float32: the GRU's output at every token, zero where mask is False
    mask: Tensor  # (B, S) bool: True at real tokens; every row has at least one


@dataclass(frozen=True)
class Injection:
    """What a rationale injector hands to the trunk."""

    states: Tensor  # (B, K, D): rationale embeddings, concatenated ahead of the GRU; K may be 0
    mask: Tensor  # (B, K) bool: True where a state is to be read
    span_logits: Tensor | None = None  # (B, T, L): how likely each response token is evidence for each mechanism


def _check(spec: Loss | Rationale | Head) -> None:
    name: object = spec.name
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise ValueError(
            f"{type(spec).__name__} name {spec.name!r}: expected lower-case letters, digits and hyphens, first a letter"
        )
    build: object = spec.build
    if not callable(build):
        raise TypeError(f"{type(spec).__name__} {spec.name!r}: build is a {type(build).__name__}, expected a function")


@dataclass(frozen=True)
class Loss:
    """A loss for one mechanism.

    ``build(task, *, options)`` returns ``f(logits, target) -> losses`` with logits (N, C) float32, target (N,) int64 and
    losses (N,) float32: an ``nn.Module`` where the loss learns, any function otherwise. N may be 0; items are independent;
    value and gradient are finite for ``|logit|`` up to 1e4. The kit masks, casts, moves and reduces, so a loss has no
    ``reduction``, ``ignore_index`` or ``device``.
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
    output does not change with padding or with the other pairs of the batch. ``gold`` says where the kit hands over the
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
    """A head for one mechanism.

    ``build(task, width, *, options)`` returns an ``nn.Module``: ``Encoded -> logits (B, K)`` with a method
    ``probabilities(logits) -> (B, C)`` and, if it does not learn through the run's loss, a
    ``criterion(logits (N, K), target (N,)) -> (N,)`` of its own.
    """

    name: str
    build: Callable[..., Module]

    def __post_init__(self) -> None:
        _check(self)


Spec = Loss | Rationale | Head


def first_line(build: Callable[..., Any]) -> str:
    """The first line of a builder's docstring, which `plugins list` shows; empty where there is none."""
    return (build.__doc__ or "").strip().partition("\n")[0]
