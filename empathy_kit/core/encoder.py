"""A Hugging Face encoder and its fast tokenizer, from a folder or a hub name; never remote code, never a pickle."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from empathy_kit.core.unpadded import first_position
from empathy_kit.errors import KitError

ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout", "attn_dropout", "attn_pdrop")
"""What configurations call the dropout inside attention: BERT and its kin, DistilBERT and ModernBERT, XLM, GPT-2."""

NOT_HERE = "not on this machine, and the Hugging Face hub does not answer"

MOST_LAYERS, WIDEST = 1000, 65_536  # of an encoder; beyond, a configuration asks for memory that no encoder needs


def load_encoder(source: str, *, local: bool = False, attention_dropout: float | None = None) -> tuple[nn.Module, Any]:
    """The encoder with its pretrained weights, and its tokenizer.

    Args:
        source: a folder, or a name on the Hugging Face hub.
        local: fetch nothing; a hub name is then looked for in the hub's local cache.
        attention_dropout: replaces the encoder's own; 0 lets SDPA take its fast path on a CPU. An encoder that has none takes
            None and 0.

    Raises:
        KitError: nothing there, no network, weights that are not safetensors, no fast tokenizer, or no text encoder.
    """
    tokenizer = load_tokenizer(source, local=local)
    _check_index(source)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False, local_files_only=local)
        _check_config(source, config)
        if attention_dropout is not None:
            _set_attention_dropout(source, config, attention_dropout)
        encoder, found = _build(
            lambda attention: AutoModel.from_pretrained(
                source,
                config=config,
                trust_remote_code=False,
                local_files_only=local,
                use_safetensors=True,
                attn_implementation=attention,
                dtype=torch.float32,  # by default it would be the file's: half precision, for some
                output_loading_info=True,
            )
        )
    except KitError:
        raise
    except Exception as error:  # transformers, tokenizers and safetensors each raise their own for a broken or missing file
        raise KitError(f"encoder {source}: {_what_to_do(source, local, error)}") from None
    missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
    if missing:  # transformers draws them at random and only logs it
        raise KitError(
            f"encoder {source}: its file lacks {len(missing)} of the weights ({missing[0]}, ...), expected all of them"
        )
    _without_pooler(encoder)
    _check_readable(source, encoder, tokenizer)
    return encoder, tokenizer


def load_tokenizer(source: str, *, local: bool = False) -> Any:
    """An encoder's fast tokenizer alone.

    Raises:
        KitError: as `load_encoder`.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True, trust_remote_code=False, local_files_only=local)
    except Exception as error:  # as above
        raise KitError(f"encoder {source}: {_what_to_do(source, local, error)}") from None
    if not getattr(tokenizer, "is_fast", False):
        raise KitError(f"encoder {source}: it has no fast tokenizer (tokenizer.json), which the rationale spans need")
    return tokenizer


def rebuild_encoder(folder: Path) -> tuple[nn.Module, Any]:
    """The same architecture with random weights, and the tokenizer, from a checkpoint's folder; nothing is downloaded."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    _check_config(str(folder), config)
    encoder = _build(lambda attention: AutoModel.from_config(config, attn_implementation=attention, dtype=torch.float32))
    _without_pooler(encoder)
    return encoder, tokenizer


def longest_input(encoder: nn.Module) -> int:
    """The most tokens that the encoder has positions for."""
    config: Any = encoder.config
    positions = int(getattr(config, "max_position_embeddings", 0) or 1_000_000)
    return positions - first_position(encoder)


def word_ids(encoder: nn.Module, count: int) -> list[int]:
    """The first ids of the vocabulary that are not its padding: RoBERTa would count no position for that one."""
    table: Any = encoder.get_input_embeddings() if hasattr(encoder, "get_input_embeddings") else None  # type: ignore[operator]
    padding = {getattr(encoder.config, "pad_token_id", None), getattr(table, "padding_idx", None)}
    known = int(getattr(table, "num_embeddings", count + len(padding)))
    found = [number for number in range(min(known, count + len(padding))) if number not in padding][:count]
    return (found * count)[:count]


def padded_states(encoder: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:  # (B, L) int64, (B, L) bool -> (B, L, D)
    """Encoder states from a plain call over a padded batch, zeros at the padding."""
    states: Tensor = encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    return states * mask[..., None]


def _build(make: Any) -> Any:
    """With torch's fast attention where the architecture has it in transformers, else with its own."""
    try:
        return make("sdpa")
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
        return make("eager")


def _check_index(source: str) -> None:
    """Weights in several files are named by an index: only files beside it, and never a pickle."""
    index = Path(source) / "model.safetensors.index.json"
    if not os.path.isfile(index):  # noqa: PTH113 - Path.is_file raises where the name is too long
        return
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise KitError(f"encoder {source}: {index.name} cannot be read, expected the index of safetensors files") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise KitError(f"encoder {source}: {index.name} names {str(name)[:60]!r}, expected .safetensors files beside it")


def _check_config(source: str, config: Any) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise KitError(f"encoder {source}: a {config.model_type} model has an encoder and a decoder, expected an encoder alone")
    layers, width = (getattr(config, name, 1) for name in ("num_hidden_layers", "hidden_size"))
    for what, value, most in (("layers", layers, MOST_LAYERS), ("hidden_size", width, WIDEST)):
        if not isinstance(value, int) or not 1 <= value <= most:
            raise KitError(f"encoder {source}: its configuration has {what} {value!r}, expected 1 to {most:,}")


def _set_attention_dropout(source: str, config: Any, value: float) -> None:
    known = [name for name in ATTENTION_DROPOUTS if hasattr(config, name)]
    if not known and value:
        raise KitError(f"attention-dropout {value}: {source} has no such setting, expected none or 0")
    for name in known:
        setattr(config, name, value)


def _without_pooler(encoder: nn.Module) -> None:
    # Nothing reads it, so it would only be saved and moved.
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None  # type: ignore[assignment]


def _check_readable(source: str, encoder: nn.Module, tokenizer: Any) -> None:
    """One tiny forward pass decides whether a model can be read as a text encoder."""
    table: Any = encoder.get_input_embeddings() if hasattr(encoder, "get_input_embeddings") else None  # type: ignore[operator]
    rows = int(getattr(table, "num_embeddings", 0))
    if rows and len(tokenizer) > rows:
        raise KitError(f"encoder {source}: its tokenizer has {len(tokenizer):,} words, its embedding {rows:,}; expected no more")
    ids = torch.tensor([word_ids(encoder, 3), word_ids(encoder, 3)])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    name = type(encoder).__name__
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            states = padded_states(encoder.eval(), ids, mask)
    except Exception as error:  # another kind of model fails as it likes
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise KitError(
            f"encoder {source}: a {name} cannot be read as a text encoder ({reason[:120]}); expected one such as BERT or RoBERTa"
        ) from None
    if states.dim() != 3 or states.shape[:2] != ids.shape:
        raise KitError(f"encoder {source}: a {name} gives states of shape {tuple(states.shape)}, expected one state per token")


def _what_to_do(source: str, local: bool, error: Exception) -> str:
    reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
    if os.path.isdir(source):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        return f"cannot be loaded ({reason}); expected config.json, model.safetensors and tokenizer.json in this folder"
    if local:
        return NOT_HERE
    return f"cannot be loaded from the Hugging Face hub: {reason}"
