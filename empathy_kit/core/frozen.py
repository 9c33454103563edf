"""Lower encoder layers that are not trained: what they say of a post is computed once, and read from a file ever after."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from empathy_kit.core.unpadded import CALL, lower_states
from empathy_kit.errors import KitError

Post = tuple[int, ...]  # token ids, special tokens included


def freeze(encoder: nn.Module, depth: int) -> list[nn.Module]:
    """Stop the training of the embeddings and the lowest layers; what is returned must also stay in eval mode.

    Raises:
        KitError: an encoder that has fewer layers, or none that can be told apart.
    """
    count = int(getattr(encoder.config, "num_hidden_layers", 0))
    layers = next((part for part in encoder.modules() if isinstance(part, nn.ModuleList) and len(part) == count), None)
    embeddings = getattr(encoder, "embeddings", None)
    if layers is None or not isinstance(embeddings, nn.Module):
        raise KitError(
            f"--freeze-layers {depth}: the layers of this encoder ({type(encoder).__name__}) are not known, expected 0"
        )
    if depth > count:
        raise KitError(f"--freeze-layers {depth}: the encoder has {count} layers, expected 0 to {count}")
    frozen = [embeddings, *layers[:depth]]
    for part in frozen:
        part.requires_grad_(False)
    return frozen


class FrozenStates:
    """The frozen layers' states of many posts, in one memory-mapped file that runs on the same posts share."""

    def __init__(self, encoder: nn.Module, depth: int, posts: Iterable[Post], folder: Path) -> None:
        """Open the file for these posts, or compute it. The file's name is a hash of posts and frozen weights.

        Raises:
            KitError: the folder cannot be written.
        """
        self._encoder = encoder
        self._depth = depth
        # Sorted, so that every run computes the same calls and gets the same bits, whoever is first.
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
            self._compute(unique, (total, width))
            states = self._open((total, width))
        if states is None:
            raise KitError(f"{self.path}: changed while it was read, expected to be left alone")
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
        try:
            states: NDArray[np.float32] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):  # not there, or cut short
            return None
        return states if states.shape == shape and states.dtype == np.float32 else None

    def _compute(self, posts: list[Post], shape: tuple[int, int]) -> None:
        staging = self.path.with_name(f".{self.path.name}.partial-{secrets.token_hex(4)}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with staging.open("wb") as stream:  # not mapped: there, a full disk would be a signal that kills the process
                header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
                for batch in _calls(posts):
                    longest = max(map(len, batch))
                    ids = torch.tensor([[*post, *[0] * (longest - len(post))] for post in batch])
                    mask = torch.tensor([[True] * len(post) + [False] * (longest - len(post)) for post in batch])
                    stream.write(lower_states(self._encoder, ids, mask, self._depth).numpy().tobytes())
            staging.replace(self.path)  # whole or not at all; another run's file would hold the same
        except OSError as error:
            staging.unlink(missing_ok=True)
            raise KitError(f"--freeze-layers {self._depth}: {self.path} cannot be written: {error.strerror}") from None
        except BaseException:
            staging.unlink(missing_ok=True)
            raise


def _calls(posts: list[Post]) -> Iterable[list[Post]]:
    """Posts a call of the encoder, in order."""
    batch: list[Post] = []
    for post in posts:
        if batch and sum(map(len, batch)) + len(post) > CALL:
            yield batch
            batch = []
        batch.append(post)
    if batch:
        yield batch


def _key(encoder: nn.Module, depth: int, posts: list[Post]) -> str:
    digest = hashlib.sha256(f"frozen states 1, depth {depth}".encode())
    for name, parameter in sorted(encoder.named_parameters()):
        if not parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().numpy().tobytes())
    digest.update(repr(posts).encode())
    return digest.hexdigest()[:32]
