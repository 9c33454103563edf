"""empathy-kit: predict three mechanisms of empathy in peer support. This module is the plugin author's vocabulary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from empathy_kit.contracts import Encoded, Head, Injection, Loss, Rationale, Sampler, Task, Texts, Trunk
from empathy_kit.errors import KitError
from empathy_kit.hookspecs import hookimpl

__version__ = "0.1.0"

if TYPE_CHECKING:
    from empathy_kit.inference.estimator import EmpathyClassifier
    from empathy_kit.inference.model import EmpathyModel, load
    from empathy_kit.inference.prediction import Prediction

__all__ = [
    "Encoded",
    "Head",
    "Injection",
    "KitError",
    "Loss",
    "Rationale",
    "Sampler",
    "Task",
    "Texts",
    "Trunk",
    "hookimpl",
    "EmpathyClassifier",
    "EmpathyModel",
    "Prediction",
    "load",
]

# What uses a model is imported when it is asked for: a plugin's author needs none of it.
_LAZY = {"EmpathyClassifier": "estimator", "EmpathyModel": "model", "Prediction": "prediction", "load": "model"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"empathy_kit.inference.{_LAZY[name]}"), name)
