"""A state of mappings, lists, numbers and tensors as what JSON and safetensors can hold, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

_TENSOR, _PAIRS = "tensor", "pairs"  # the one key of a stand-in: the name of a tensor, or a mapping as pairs of key and value


def pack(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """Take a state apart: a JSON value, and the tensors that it names. On the CPU they are the state's own, not copies.

    Raises:
        TypeError: a value that neither format has.
    """
    tensors: dict[str, Tensor] = {}
    known: dict[tuple[Any, ...], str] = {}  # places in memory to names: what two parts of a model share is written once
    return _packed(value, "", tensors, known), tensors


def _packed(value: Any, path: str, tensors: dict[str, Tensor], known: dict[tuple[Any, ...], str]) -> Any:
    if isinstance(value, Tensor):
        storage = (value.device, value.untyped_storage().data_ptr())
        place = (*storage, value.storage_offset(), value.shape, value.stride(), value.dtype)
        if place not in known or not value.numel():
            plain = value.detach().cpu().contiguous()
            # safetensors refuses tensors that overlap, such as two views of one matrix.
            tensors[path] = plain.clone() if storage in known else plain
            known[storage] = known[place] = path
        return {_TENSOR: known[place] if value.numel() else path}
    if isinstance(value, Mapping):
        pairs = [[key, _packed(part, f"{path}/{key}" if path else str(key), tensors, known)] for key, part in value.items()]
        return {_PAIRS: pairs}
    if isinstance(value, list | tuple):
        return [_packed(part, f"{path}/{at}", tensors, known) for at, part in enumerate(value)]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{path}: a {type(value).__name__} found, expected a tensor, number, text, list or mapping")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put a state together again; tuples are lists now."""
    if isinstance(value, list):
        return [unpack(part, tensors) for part in value]
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {key: unpack(part, tensors) for key, part in value[_PAIRS]}
    return value
