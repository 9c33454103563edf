"""Tiny random encoders of every architecture that the kit is tested with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

PLAIN = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": PLAIN,
    "roberta": {**PLAIN, "type_vocab_size": 1},
    "deberta-v2": {**PLAIN, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    "mpnet": PLAIN,
    "electra": {**PLAIN, "embedding_size": 12},
    "distilbert": {"n_layers": 2, "n_heads": 2, "dim": 16, "hidden_dim": 24},
    "albert": {**PLAIN, "embedding_size": 12},
    "modernbert": {**PLAIN, "global_attn_every_n_layers": 1},
}


def make(architecture: str, folder: Path, tokenizer: Path, **changes: Any) -> Path:
    """A folder with a tiny random encoder, and RoBERTa's tokenizer of the sample."""
    folder.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer / file, folder / file)
    ids = {"vocab_size": 600, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        architecture, **{**ARCHITECTURES[architecture], **ids, "max_position_embeddings": 60, **changes}
    )
    AutoModel.from_config(config).save_pretrained(folder)
    return folder
