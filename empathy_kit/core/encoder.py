"""A Hugging Face encoder and its fast tokenizer, from a folder or a hub name; never remote code, never a pickle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from empathy_kit.core.unpadded import first_position
from empathy_kit.errors import KitError


def load_encoder(source: str, *, local: bool = False, attention_dropout: float | None = None) -> tuple[nn.Module, Any]:
    """The encoder with its pretrained weights, and its tokenizer.

    Args:
        source: a folder, or a name on the Hugging Face hub.
        local: fetch nothing; a hub name is then looked for in the hub's local cache.
        attention_dropout: replaces the encoder's own; 0 lets SDPA take its fast path on a CPU.

    Raises:
        KitError: nothing there, no network, weights that are not safetensors, or no fast tokenizer.
    """
    tokenizer = load_tokenizer(source, local=local)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, local_files_only=local)
        if attention_dropout is not None:
            _set_attention_dropout(source, config, attention_dropout)
        encoder, found = AutoModel.from_pretrained(
            source,
            config=config,
            trust_remote_code=False,
            local_files_only=local,
            use_safetensors=True,
            attn_implementation="sdpa",
            dtype=torch.float32,  # by default it would be the file's: half precision, for some
            output_loading_info=True,
        )
    except KitError:
        raise
    except Exception as error:  # transformers, tokenizers and safetensors each raise their own for a broken or missing file
        raise KitError(f"--encoder {source}: {_what_to_do(source, local, error)}") from None
    missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
    if missing:  # transformers draws them at random and only logs it
        raise KitError(
            f"--encoder {source}: its file lacks {len(missing)} of the weights ({missing[0]}, ...), expected all of them"
        )
    _without_pooler(encoder)
    return encoder, tokenizer


def load_tokenizer(source: str, *, local: bool = False) -> Any:
    """An encoder's fast tokenizer alone.

    Raises:
        KitError: as `load_encoder`.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True, trust_remote_code=False, local_files_only=local)
    except Exception as error:  # as above
        raise KitError(f"--encoder {source}: {_what_to_do(source, local, error)}") from None
    if not tokenizer.is_fast:
        raise KitError(f"--encoder {source}: it has no fast tokenizer (tokenizer.json), which the rationale spans need")
    return tokenizer


def rebuild_encoder(folder: Path) -> tuple[nn.Module, Any]:
    """The same architecture with random weights, and the tokenizer, from a checkpoint's folder; nothing is downloaded."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    encoder = AutoModel.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    _without_pooler(encoder)
    return encoder, tokenizer


def longest_input(encoder: nn.Module) -> int:
    """The most tokens that the encoder has positions for."""
    config: Any = encoder.config
    positions = int(getattr(config, "max_position_embeddings", 1_000_000))
    return positions - first_position(encoder)


def _set_attention_dropout(source: str, config: Any, value: float) -> None:
    known = [name for name in ("attention_probs_dropout_prob", "attention_dropout") if hasattr(config, name)]
    if not known:
        raise KitError(f"--attention-dropout {value}: {source} has no such setting, expected none")
    for name in known:
        setattr(config, name, value)


def _without_pooler(encoder: nn.Module) -> None:
    # Nothing reads it, so it would only be saved, moved and (in DDP) waited for.
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # type: ignore[assignment]


def _what_to_do(source: str, local: bool, error: Exception) -> str:
    reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
    if os.path.isdir(source):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        return f"cannot be loaded ({reason}); expected config.json, model.safetensors and tokenizer.json in this folder"
    if local:
        return (
            "not on this machine, and the Hugging Face hub does not answer; download it where there is a network and give its "
            "folder as --encoder FOLDER, or use --encoder minilm"
        )
    return f"cannot be loaded from the Hugging Face hub: {reason}"
