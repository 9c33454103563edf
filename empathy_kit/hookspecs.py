"""The five hooks. A plugin implements any of them with ``@empathy_kit.hookimpl`` and yields specs."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from empathy_kit.contracts import Head, Loss, Rationale, Sampler, Trunk

PROJECT = "empathy_kit"
"""The project name of the markers, and the entry-point group that distributions register under."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def empathy_kit_losses() -> Iterable[Loss]:  # type: ignore[empty-body]
    """Yield the losses that this plugin offers."""


@hookspec
def empathy_kit_rationales() -> Iterable[Rationale]:  # type: ignore[empty-body]
    """Yield the rationale injectors that this plugin offers."""


@hookspec
def empathy_kit_heads() -> Iterable[Head]:  # type: ignore[empty-body]
    """Yield the task heads that this plugin offers."""


@hookspec
def empathy_kit_samplers() -> Iterable[Sampler]:  # type: ignore[empty-body]
    """Yield the samplers of training pairs that this plugin offers."""


@hookspec
def empathy_kit_trunks() -> Iterable[Trunk]:  # type: ignore[empty-body]
    """Yield the trunks that this plugin offers."""
