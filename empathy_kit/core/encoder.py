"""A Hugging Face encoder and its fast tokenizer, from a folder or a hub name; never remote code, never a pickle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from empathy_kit.core.guard import check_files, check_weights
from empathy_kit.core.unpadded import first_position
from empathy_kit.errors import KitError

ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout", "attn_dropout", "attn_pdrop")
"""What configurations call the dropout inside attention: BERT and its kin, DistilBERT and ModernBERT, XLM, GPT-2."""

NOT_HERE = "not on this machine, and the Hugging Face hub does not answer"

PADDING_COUNTS = 1e-4  # relative deviation from which a post's states depend on its padding, and not on rounding


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
    if missing and any(name.startswith("trunk.") for name in found["unexpected_keys"]):
        raise KitError(
            f"encoder {source}: the model of a finished run found, expected an encoder alone; use the encoder that the run was "
            "made from, which its run.json names"
        )
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
        check_files(source, local=local)
    except KitError as error:
        raise KitError(f"encoder {source}: {error}") from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, use_fast=True, trust_remote_code=False, local_files_only=local)
    except Exception as error:  # as above
        raise KitError(f"encoder {source}: {_what_to_do(source, local, error)}") from None
    if not getattr(tokenizer, "is_fast", False):
        raise KitError(f"encoder {source}: it has no fast tokenizer (tokenizer.json), which the rationale spans need")
    return tokenizer


def rebuild_encoder(folder: Path) -> tuple[nn.Module, Any]:
    """The same architecture with random weights, and the tokenizer, from a checkpoint's folder; nothing is downloaded.

    Raises:
        KitError: files that are missing or broken, or sizes that are not those of the weights.
    """
    tokenizer = load_tokenizer(str(folder), local=True)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        _check_config(str(folder), config)

        def make(attention: str) -> Any:
            return AutoModel.from_config(config, attn_implementation=attention, dtype=torch.float32)

        with torch.device("meta"):  # where nothing takes memory
            numbers = sum(parameter.numel() for parameter in _build(make).parameters())
        check_weights(folder, numbers)
        encoder: nn.Module = _build(make)
    except KitError as error:
        text = str(error)
        raise KitError(text if text.startswith("encoder ") else f"encoder {folder}: {text}") from None
    except Exception as error:  # as above
        raise KitError(f"encoder {folder}: {_what_to_do(str(folder), True, error)}") from None
    _without_pooler(encoder)
    return encoder, tokenizer


def longest_input(encoder: nn.Module) -> int:
    """The most tokens that the encoder has positions for."""
    positions: Any = getattr(encoder.config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions <= 0:  # XLNet's is -1: it counts from token to token
        return 1_000_000
    return positions - first_position(encoder)


def sample_posts(encoder: nn.Module, lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:  # -> (B, L) int64, (B, L) bool
    """Posts of random words to try an encoder on, shorter where it has fewer positions; the same ones every time."""
    table = word_table(encoder)
    rows = 10 if table is None else table.weight.shape[0]
    found = (getattr(encoder.config, "pad_token_id", None), getattr(table, "padding_idx", None))
    padding = [each for each in found if isinstance(each, int) and 0 <= each < rows] or [0]
    word = next(each for each in range(len(padding) + 1) if each not in padding) % rows
    cut = torch.tensor(lengths).clamp(max=longest_input(encoder))
    mask = torch.arange(int(cut.max())) < cut[:, None]
    ids = torch.randint(rows, mask.shape, generator=torch.Generator().manual_seed(0))
    ids = torch.where(torch.isin(ids, torch.tensor(padding)), word, ids)  # RoBERTa would count no position for its padding
    return ids.masked_fill(~mask, padding[0]), mask


def word_table(encoder: nn.Module) -> nn.Embedding | None:
    """The embedding of the vocabulary's words; None where a model has none, or hides it."""
    try:
        table: nn.Embedding = encoder.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return table if isinstance(getattr(table, "weight", None), Tensor) else None


def padded_states(encoder: nn.Module, ids: Tensor, mask: Tensor) -> Tensor:  # (B, L) int64, (B, L) bool -> (B, L, D)
    """Encoder states from a plain call over a padded batch, zeros at the padding."""
    states: Tensor = encoder(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    return torch.where(mask[..., None], states, 0)


def _build(make: Any) -> Any:
    """With torch's fast attention where the architecture has it in transformers, else with its own."""
    try:
        return make("sdpa")
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
        return make("eager")


def _check_config(source: str, config: Any) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise KitError(f"encoder {source}: a {config.model_type} model has an encoder and a decoder, expected an encoder alone")
    for what in ("num_hidden_layers", "hidden_size"):  # how large they may be depends on the file of weights
        value = getattr(config, what, 1)
        if not isinstance(value, int) or value < 1:
            raise KitError(f"encoder {source}: its configuration has {what} {value!r}, expected a whole number above 0")


def _set_attention_dropout(source: str, config: Any, value: float) -> None:
    known = [name for name in ATTENTION_DROPOUTS if hasattr(config, name)]
    if not known and value:
        raise KitError(f"attention-dropout {value}: {source} has no such setting, expected none or 0")
    for name in known:
        setattr(config, name, value)


def _without_pooler(encoder: nn.Module) -> None:
    # Nothing reads it, so it would only be saved and moved. A few models cannot be called without.
    pooler = getattr(encoder, "pooler", None)
    if pooler is None:
        return
    encoder.pooler = None  # type: ignore[assignment]
    try:
        _tried(encoder)
    except Exception:
        encoder.pooler = pooler


def _tried(encoder: nn.Module) -> tuple[Tensor, Tensor]:  # -> (2, L, D), (1, l, D)
    """States of two posts, the second shorter and padded; and of the second alone, in eval mode."""
    ids, mask = sample_posts(encoder, (24, 9))
    length = int(mask[1].sum())
    training = encoder.training
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            return padded_states(encoder.eval(), ids, mask), padded_states(encoder, ids[1:, :length], mask[1:, :length])
    finally:
        encoder.train(training)


def _check_readable(source: str, encoder: nn.Module, tokenizer: Any) -> None:
    """One tiny forward pass decides whether a model can be read as a text encoder."""
    table = word_table(encoder)
    highest = max(tokenizer.get_vocab().values(), default=0)
    if table is not None and highest >= table.weight.shape[0]:
        rows = table.weight.shape[0]
        raise KitError(f"encoder {source}: its tokenizer has {highest + 1:,} words, its embedding {rows:,}; expected no more")
    name = type(encoder).__name__
    try:
        together, alone = _tried(encoder)
    except Exception as error:  # another kind of model fails as it likes
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise KitError(
            f"encoder {source}: a {name} cannot be read as a text encoder ({reason[:120]}); expected one such as BERT or RoBERTa"
        ) from None
    if together.dim() != 3 or alone.dim() != 3:
        raise KitError(f"encoder {source}: a {name} gives states of shape {tuple(alone.shape)}, expected one state per token")
    if not together.isfinite().all():
        raise KitError(f"encoder {source}: its states are not finite; its file of weights is damaged")
    apart = (together[1:, : alone.shape[1]] - alone).abs().max() / together.abs().max().clamp(min=1e-6)
    if apart > PADDING_COUNTS:
        raise KitError(
            f"encoder {source}: a {name} gives a post other states where it is padded (relative deviation {float(apart):.0e}); "
            "expected one that masks padding, such as BERT or RoBERTa"
        )


def _what_to_do(source: str, local: bool, error: Exception) -> str:
    reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
    if os.path.isdir(source):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        return f"cannot be loaded ({reason}); expected config.json, model.safetensors and tokenizer.json in this folder"
    if local:
        return NOT_HERE
    return f"cannot be loaded from the Hugging Face hub: {reason}"
