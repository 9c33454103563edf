"""What an encoder is, as one hash: its weights, its settings and its tokenizer, wherever they were loaded from."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from torch import nn


def fingerprint(encoder: nn.Module, tokenizer: Any) -> str:
    """sha256 of an encoder's weights, configuration and tokenizer; where they lay does not count."""
    settings: dict[str, Any] = encoder.config.to_dict()  # type: ignore[union-attr,operator]
    kept = {name: value for name, value in settings.items() if not name.startswith(("_", "transformers"))}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    _add_weights(digest, encoder)
    return digest.hexdigest()


def weights(encoder: nn.Module) -> str:
    """sha256 of an encoder's weights alone: no release of a library changes it."""
    digest = hashlib.sha256()
    _add_weights(digest, encoder)
    return digest.hexdigest()


def _add_weights(digest: hashlib._Hash, encoder: nn.Module) -> None:
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data if tensor.numel() else b"")


def revision(encoder: nn.Module) -> dict[str, str]:
    """The commit of the Hugging Face hub that an encoder was loaded from; empty for a folder's."""
    source = str(getattr(encoder.config, "_name_or_path", ""))
    if not source or os.path.isdir(source):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        return {}
    try:
        path = Path(hf_hub_download(source, "config.json", local_files_only=True))
    except Exception:  # not from the hub
        return {}
    return {"revision": path.parent.name}  # of its cache, a folder per commit
