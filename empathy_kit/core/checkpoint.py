"""All that a model and its losses have learnt, tokenizer and encoder configuration in a folder: safetensors and JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from empathy_kit.core.model import Model
from empathy_kit.core.objective import Objective
from empathy_kit.errors import KitError

WEIGHTS = "model.safetensors"
LOSSES = "losses."  # begins the names of what losses have learnt


def weights_of(model: Model, objective: Objective) -> dict[str, torch.Tensor]:
    """All that a model and its losses have learnt, by the names that it is saved with."""
    parts = set(model.modules())  # a head's own criterion is saved with the head
    losses = {name: loss for name, loss in objective.losses.items() if loss not in parts}
    learnt = {f"{LOSSES}{name}.{key}": tensor for name, loss in losses.items() for key, tensor in loss.state_dict().items()}
    return {**model.state_dict(), **learnt}


def save(folder: Path, model: Model, objective: Objective, tokenizer: Any, encoder: nn.Module) -> None:
    """Write a model, and what its losses have learnt. The caller records what it was built from."""
    folder.mkdir()
    # Cloned: safetensors refuses tensors that share memory, which tied weights do.
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in weights_of(model, objective).items()}
    try:
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk is one of these, and the caller waits for an OSError
        raise OSError(str(error)) from error
    encoder.config.save_pretrained(folder)  # type: ignore[union-attr,operator]
    try:
        tokenizer.save_pretrained(folder)
    except Exception as error:  # tokenizers raises nothing narrower, for a full disk neither
        if "(os error " not in str(error):
            raise
        raise OSError(str(error)) from error


def load(folder: Path, model: Model, objective: Objective | None = None) -> None:
    """Put the saved weights into a model of the same shape, and into its losses where they are given.

    Raises:
        KitError: the file is missing or broken, or it belongs to another model.
    """
    path = folder / WEIGHTS
    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise KitError(f"{path}: cannot be read: {type(error).__name__}") from None
    learnt = {name.removeprefix(LOSSES): weights.pop(name) for name in list(weights) if name.startswith(LOSSES)}
    try:
        model.load_state_dict(weights)
        if objective is not None:
            parts = set(model.modules())
            nn.ModuleDict({name: loss for name, loss in objective.losses.items() if loss not in parts}).load_state_dict(learnt)
    except RuntimeError:
        raise KitError(f"{path}: holds the weights of another model") from None
