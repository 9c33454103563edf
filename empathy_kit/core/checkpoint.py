"""A model's weights, tokenizer and encoder configuration in a folder: safetensors and JSON, no pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from empathy_kit.errors import KitError

WEIGHTS = "model.safetensors"


def save(folder: Path, model: nn.Module, tokenizer: Any, encoder: nn.Module) -> None:
    """Write a model. The caller records what it was built from."""
    folder.mkdir()
    # Cloned: safetensors refuses tensors that share memory, which tied weights do.
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    try:
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    except SafetensorError as error:  # a full disk is one of these, and the caller waits for an OSError
        raise OSError(str(error)) from error
    encoder.config.save_pretrained(folder)  # type: ignore[union-attr,operator]
    tokenizer.save_pretrained(folder)


def load(folder: Path, model: nn.Module) -> None:
    """Put the saved weights into a model of the same shape.

    Raises:
        KitError: the file is missing or broken, or it belongs to another model.
    """
    path = folder / WEIGHTS
    try:
        weights: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise KitError(f"{path}: cannot be read: {type(error).__name__}") from None
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        raise KitError(f"{path}: holds the weights of another model") from None
