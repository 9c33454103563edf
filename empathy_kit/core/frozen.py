"""Lower encoder layers that are not trained: what they say of a post is computed once, and read from a file ever after."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from empathy_kit import files
from empathy_kit.cache import clear_oldest, private_folder
from empathy_kit.core.unpadded import calls, lower_states
from empathy_kit.errors import KitError

Post = tuple[int, ...]  # token ids, special tokens included


def freeze(encoder: nn.Module, depth: int) -> list[nn.Module]:
    """Stop the training of the embeddings, the lowest layers, and what they share with the others, such as a position bias.

    What is returned must also stay in eval mode.

    Raises:
        KitError: an encoder that has fewer layers, or none that can be told apart.
    """
    count = int(getattr(encoder.config, "num_hidden_layers", 0))
    owner, layers = next(
        (
            (parent, part)
            for parent in encoder.modules()
            for part in parent.children()
            if isinstance(part, nn.ModuleList) and len(part) == count
        ),
        (None, None),
    )
    embeddings = getattr(encoder, "embeddings", None)
    if owner is None or layers is None or not isinstance(embeddings, nn.Module):
        raise KitError(f"freeze-layers {depth}: the layers of this encoder ({type(encoder).__name__}) are not known, expected 0")
    if depth > count:
        raise KitError(f"freeze-layers {depth}: the encoder has {count} layers, expected 0 to {count}")
    shared = [part for part in owner.children() if part is not layers] if owner is not encoder else []
    frozen = [embeddings, *shared, *layers[:depth]]
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
        """The file's states, or None where it is missing, cut short or damaged: a flipped bit would be another score."""
        try:
            states: NDArray[np.float32] = np.load(self.path, mmap_mode="r", allow_pickle=False)
            if states.shape != shape or states.dtype != np.float32 or not _is_sound(self.path):
                return None
            os.utime(self.path)  # used just now: the last to be cleared away
        except (OSError, ValueError, EOFError):
            return None
        return states

    def _compute(self, posts: list[Post], shape: tuple[int, int]) -> None:
        staging = files.staging_name(self.path)
        try:
            private_folder(self.path.parent)
            # Not mapped: there, a full disk would be a signal that kills the process. For nobody else to read: the posts can be
            # recovered from their states.
            with os.fdopen(os.open(staging, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as stream:
                header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.float32)), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(stream, header)
                start = 0
                for lengths in calls([len(post) for post in posts]):
                    batch = posts[start : start + len(lengths)]
                    start += len(lengths)
                    longest = max(lengths)
                    ids = torch.tensor([[*post, *[0] * (longest - len(post))] for post in batch])
                    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
                    stream.write(lower_states(self._encoder, ids, mask, self._depth).numpy().tobytes())
                stream.seek(0)
                digest = hashlib.file_digest(stream, "sha256").digest()
                stream.seek(0, os.SEEK_END)
                stream.write(digest)  # after the array, where numpy does not look
                stream.flush()
                os.fsync(stream.fileno())
            staging.replace(self.path)  # whole or not at all; another run's file would hold the same
            clear_oldest(self.path.parent, keep=self.path)
        except OSError as error:
            staging.unlink(missing_ok=True)
            raise KitError(f"freeze-layers {self._depth}: {self.path} cannot be written: {error.strerror}") from None
        except BaseException:
            staging.unlink(missing_ok=True)
            raise


def _is_sound(path: Path) -> bool:
    """Whether a file's last 32 bytes are the sha256 of all before them."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        left = path.stat().st_size - digest.digest_size
        while left > 0 and (block := stream.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
        return stream.read() == digest.digest()


def _key(encoder: nn.Module, depth: int, posts: list[Post]) -> str:
    settings: dict[str, object] = encoder.config.to_dict()  # type: ignore[union-attr,operator]
    # Head counts and epsilons are no weights; where the encoder lay, and what is drawn in training, is not in its states.
    kept = {
        name: value for name, value in settings.items() if not name.startswith(("_", "transformers")) and "dropout" not in name
    }
    digest = hashlib.sha256(f"frozen states 2, depth {depth}, {json.dumps(kept, sort_keys=True, default=str)}".encode())
    for name, parameter in sorted(encoder.named_parameters()):
        if not parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().numpy().tobytes())
    digest.update(repr(posts).encode())
    return digest.hexdigest()[:32]
