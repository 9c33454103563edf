"""Lower encoder layers that are not trained: their states of a post are computed once, and read from a file afterwards."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from empathy_kit import files, locks
from empathy_kit.cache import clear_oldest, hold, private_folder, states_limit
from empathy_kit.core.batch import pad
from empathy_kit.core.unpadded import calls, lower_states
from empathy_kit.errors import KitError
from empathy_kit.processor import maker, rounding

Post = tuple[int, ...]  # token ids, special tokens included

DIGEST = 32
"""Bytes of a sha256, which ends each file: a flipped bit would be another score."""


def freeze(encoder: nn.Module, depth: int) -> list[nn.Module]:
    """Stop the training of all but the layers above ``depth``; what is returned is in eval mode, and must stay there.

    Not of the embeddings and the lowest layers alone: what they share with the others, such as MPNet's position bias, or what
    is between them, such as ELECTRA's projection, would still change their states.

    Raises:
        KitError: an encoder that has fewer layers, or none that can be told apart.
    """
    layers = _layers(encoder)
    if layers is None:
        raise KitError(f"freeze-layers {depth}: the layers of this encoder ({type(encoder).__name__}) are not known, expected 0")
    if depth > len(layers):
        raise KitError(f"freeze-layers {depth}: the encoder has {len(layers)} layers, expected 0 to {len(layers)}")
    frozen = list(_without(encoder, set(layers[depth:])))
    trained = {id(parameter) for layer in layers[depth:] for parameter in layer.parameters()}
    for parameter in encoder.parameters():
        if id(parameter) not in trained:
            parameter.requires_grad_(False)
    for part in frozen:
        part.eval()
    return frozen


def _layers(encoder: nn.Module) -> nn.ModuleList | None:
    """The layers, lowest first; None where they share their weights, as ALBERT's, or are called otherwise."""
    count = int(getattr(encoder.config, "num_hidden_layers", 0))
    if hasattr(encoder.config, "num_hidden_groups"):
        return None
    return next((part for part in encoder.modules() if isinstance(part, nn.ModuleList) and len(part) == count), None)


def _without(part: nn.Module, trained: set[nn.Module]) -> Iterator[nn.Module]:
    """The largest parts that hold none of the trained layers."""
    if trained.isdisjoint(part.modules()):
        yield part
    elif part not in trained:
        for child in part.children():
            yield from _without(child, trained)


class FrozenStates:
    """The frozen layers' states of many posts, in one memory-mapped file that runs on the same posts share."""

    def __init__(self, encoder: nn.Module, depth: int, posts: Iterable[Post], folder: Path) -> None:
        """Open the file for these posts, or compute it. The file's name is a hash of posts and frozen weights.

        Raises:
            KitError: the folder cannot be written, or the cache's limit is not a number.
        """
        self._encoder = encoder
        self._depth = depth
        # Sorted, so that every run computes the same calls and gets the same bits, whichever is first.
        unique = sorted(set(posts), key=lambda post: (len(post), post))
        self.starts: dict[Post, int] = {}
        total = 0
        for post in unique:
            self.starts[post] = total
            total += len(post)
        width = int(encoder.config.hidden_size)  # type: ignore[union-attr,arg-type]
        self.path = folder / f"{_key(encoder, depth, unique)}.npy"
        states = self._open((total, width))
        if states is None:
            states = self._made(unique, (total, width))
        if states is None:
            raise KitError(f"freeze-layers {depth}: {self.path} changed while it was read, expected to be left alone")
        self._states = states

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:  # (B, L) int64, (B, L) bool -> (N, D), real tokens end to end
        """States of a batch's posts, padding on the right; those of posts that are not in the file are computed."""
        lengths = mask.sum(1).tolist()
        parts = []
        for row, length in zip(ids.tolist(), lengths, strict=True):
            start = self.starts.get(tuple(row[:length]))
            if start is None:
                post = torch.tensor([row[:length]])
                parts.append(lower_states(self._encoder, post, torch.ones_like(post, dtype=torch.bool), self._depth))
            else:
                parts.append(torch.from_numpy(np.array(self._states[start : start + length])))
        return torch.cat(parts)

    def _open(self, shape: tuple[int, int]) -> NDArray[np.float32] | None:
        """The file's states, or None where it is missing or any of its bytes is not the one that was written."""
        header = _header(shape)
        try:
            with self.path.open("rb") as stream:
                hold(stream, self.path)  # for as long as it is mapped, which is longer than it is open here
                # The length first: whatever the file declares, no more is read, mapped or computed than is expected.
                if os.fstat(stream.fileno()).st_size != len(header) + 4 * math.prod(shape) + DIGEST or not _is_sound(
                    stream, header
                ):
                    return None
                return np.memmap(stream, np.float32, mode="r", offset=len(header), shape=shape)
        except OSError:
            return None

    def _made(self, posts: list[Post], shape: tuple[int, int]) -> NDArray[np.float32] | None:
        """The file's states, computed by this process unless another one is just doing it."""
        try:
            limit = states_limit()
        except KitError as error:
            raise KitError(f"freeze-layers {self._depth}: {error}") from None
        try:
            private_folder(self.path.parent)
            with locks.alone(self.path.with_name(f".{self.path.name}{locks.LOCK}")):
                if (states := self._open(shape)) is None:
                    self._compute(posts, shape, limit)
                    states = self._open(shape)
                return states
        except OSError as error:
            raise KitError(f"freeze-layers {self._depth}: {self.path} cannot be written: {error.strerror}") from None

    def _compute(self, posts: list[Post], shape: tuple[int, int], limit: int) -> None:
        digest = hashlib.sha256()
        # Not mapped: there, a full disk would be a signal that kills the process. The owner alone may read it: posts can be
        # recovered from their states.
        with files.staged_file(self.path, 0o600) as stream:
            # One by one: the states of a large table are larger than the memory.
            for block in itertools.chain((_header(shape),), self._blocks(posts)):
                digest.update(block)
                stream.write(block)
            stream.write(digest.digest())  # after the array, where numpy does not look
        clear_oldest(self.path.parent, keep=self.path, limit=limit)

    def _blocks(self, posts: list[Post]) -> Iterator[bytes]:
        """The posts' states, call by call."""
        start = 0
        for lengths in calls([len(post) for post in posts]):
            batch = posts[start : start + len(lengths)]
            start += len(lengths)
            yield lower_states(self._encoder, *pad(batch, 0), self._depth).numpy().tobytes()


def _header(shape: tuple[int, int]) -> bytes:
    """What numpy writes before an array of float32."""
    stream = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def _is_sound(stream: BinaryIO, header: bytes) -> bool:
    """Whether a file begins with this header, and ends with the sha256 of all before the last 32 bytes."""
    digest = hashlib.sha256()
    left = os.fstat(stream.fileno()).st_size - DIGEST - len(header)
    if (block := stream.read(len(header))) != header:
        return False
    digest.update(block)
    while left > 0 and (block := stream.read(min(left, 1 << 20))):
        digest.update(block)
        left -= len(block)
    return stream.read() == digest.digest()


def _key(encoder: nn.Module, depth: int, posts: list[Post]) -> str:
    """A name for all that the states follow from: another number of heads, or another release, is another file."""
    settings: dict[str, object] = encoder.config.to_dict()  # type: ignore[union-attr,operator]
    # Where the encoder lay, and what is drawn in training, is not in its states.
    kept = {
        name: value for name, value in settings.items() if not name.startswith(("_", "transformers")) and "dropout" not in name
    }
    releases = f"torch {torch.__version__}, transformers {transformers.__version__}"
    # The bits depend on all: without them, a run's numbers would depend on which run filled the cache.
    computed = f"threads {torch.get_num_threads()}, {torch.backends.cpu.get_cpu_capability()}, {maker()}, {rounding()}"
    described = json.dumps(kept, sort_keys=True, default=str)
    digest = hashlib.sha256(f"frozen states 5, {releases}, {computed}, depth {depth}, {described}".encode())
    for name, parameter in sorted(encoder.named_parameters()):
        if not parameter.requires_grad:
            digest.update(f"{name} {tuple(parameter.shape)}".encode())
            digest.update(parameter.detach().cpu().numpy().tobytes())
    for post in posts:
        digest.update(repr(post).encode())
    return digest.hexdigest()[:32]
