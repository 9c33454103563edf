"""What an encoder's files must show before anything is built from them: no pickle, no path out, no absurd size."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from empathy_kit.errors import KitError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

_TENSORS = 20_000
_ADDED_TOKENS = 20_000  # the tokenizer's time grows with their square
_HEADER = 100_000_000  # bytes, as safetensors itself
_SIZE = re.compile(r"(^|_)(size|dim|embeddings|positions|heads|hidden|groups)$|^(n_|d_|num_|max_)")
_LAYERS = re.compile(r"layers?$")


def check_files(source: str, *, local: bool) -> None:
    """Refuse an encoder whose files would load a pickle, lead elsewhere, or take unbounded time or memory.

    A file that is missing or broken is not judged: loading it raises the error.

    Raises:
        KitError: one of these.
    """
    if os.path.isdir(source):  # noqa: PTH112 - as in `_file`
        _check_regular(Path(source))
    weights = _weights(source, local)
    shapes = [shape for path in weights for shape in _shapes(path)]
    if len(shapes) > _TENSORS:
        raise KitError(f"its weights are {len(shapes):,} tensors, expected at most {_TENSORS:,}")
    if shapes:
        _check_sizes(_read(_file(source, "config.json", local)), len(shapes), sum(map(math.prod, shapes)))
    tokenizer = _read(_file(source, "tokenizer.json", local)).get("added_tokens")
    later = _read(_file(source, "added_tokens.json", local))
    decoder = _read(_file(source, "tokenizer_config.json", local)).get("added_tokens_decoder")
    for added in (tokenizer, later, decoder):
        if isinstance(added, list | dict) and len(added) > _ADDED_TOKENS:
            raise KitError(f"its tokenizer adds {len(added):,} tokens, expected at most {_ADDED_TOKENS:,}")


def _check_regular(folder: Path) -> None:
    """Neither a pipe nor a device, not even by a link: whoever reads one may wait, or read, for ever."""
    for path in sorted(folder.iterdir()):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise KitError(f"its {path.name} is not a regular file")


def check_weights(folder: Path, numbers: int) -> None:
    """Refuse to build a model that needs far more numbers than a checkpoint's file of weights holds.

    Raises:
        KitError: it does.
    """
    stored = sum(map(math.prod, _shapes(folder / WEIGHTS)))
    if stored and numbers > 2 * stored:  # a pooler is not stored, and tied weights are stored once
        raise KitError(f"its configuration asks for {numbers:,} numbers, {WEIGHTS} has {stored:,}")


def _weights(source: str, local: bool) -> list[Path]:
    index = _read(_file(source, INDEX, local)).get("weight_map")
    if isinstance(index, dict):
        names = sorted({str(name) for name in index.values()})
        for name in names:
            if not name.endswith(".safetensors") or Path(name).name != name or "\\" in name:
                raise KitError(f"{INDEX} names {name[:60]!r}, expected .safetensors files next to it")
    else:
        names = [WEIGHTS]
    return [path for name in names if (path := _file(source, name, local)) is not None]


def _check_sizes(config: dict[str, Any], tensors: int, numbers: int) -> None:
    for name, value in config.items():
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        limit = max(256, tensors) if _LAYERS.search(name) else max(1_000_000, numbers) if _SIZE.search(name) else None
        if limit is not None and value > limit:
            raise KitError(
                f"its configuration has {name} {value}, expected 1 to {limit:,} for weights of {tensors} tensors and "
                f"{numbers:,} numbers"
            )


def _shapes(path: Path) -> list[list[int]]:
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(length)) if length <= _HEADER else {}
        return [list(map(int, entry["shape"])) for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return []


def _read(path: Path | None) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8-sig")) if path is not None else None
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _file(source: str, name: str, local: bool) -> Path | None:
    if os.path.isdir(source):  # noqa: PTH112 - Path.is_dir raises where the name is too long
        path = Path(source, name)
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(source, name, local_files_only=local))
    except Exception:  # missing, no network, no such name: loading raises which
        return None
