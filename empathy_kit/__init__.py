"""empathy-kit: predict three mechanisms of empathy in peer support. This module is the plugin author's vocabulary."""

from __future__ import annotations

from empathy_kit.contracts import Encoded, Head, Injection, Loss, Rationale, Sampler, Task, Texts, Trunk
from empathy_kit.errors import KitError
from empathy_kit.hookspecs import hookimpl

__version__ = "0.1.0"

__all__ = ["Encoded", "Head", "Injection", "KitError", "Loss", "Rationale", "Sampler", "Task", "Texts", "Trunk", "hookimpl"]
