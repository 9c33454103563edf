"""What a model has seen: hashes of its training and validation posts, by which other tables are searched for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from empathy_kit.data.pairs import Corpus, Pair, letters
from empathy_kit.data.splits import Split, take
from empathy_kit.errors import KitError

SEEN = "seen.json"  # in the model's folder
PARTS = ("train", "validation")  # the part that it was trained on, and the part that chose the epoch and the temperatures
_FORMAT = 1
_KEY = 32  # bytes: the data's sha256
_BYTES = 8  # of a hash: a million pairs and a million others have a collision with a probability of 5e-8


@dataclass(frozen=True)
class Overlap:
    """How many pairs of a table a model has seen, per part of its data."""

    pairs: Mapping[str, int]  # both posts
    seekers: Mapping[str, int]  # the seeker post, with any response; these include the pairs


@dataclass(frozen=True)
class Seen:
    """Keyed hashes of the posts that a model was trained and validated on. Posts, ids and order are not kept."""

    key: bytes = field(repr=False)
    pairs: Mapping[str, frozenset[str]] = field(repr=False)  # part to hashes of both posts
    seekers: Mapping[str, frozenset[str]] = field(repr=False)  # part to hashes of the seeker post

    def overlap(self, pairs: Sequence[Pair]) -> tuple[Overlap, list[int]]:
        """How many of these pairs were seen, and the positions of those whose seeker post is in neither part."""
        hashes = [_hashes(self.key, pair) for pair in pairs]
        counts = Overlap(
            pairs={part: sum(both in self.pairs[part] for both, _ in hashes) for part in PARTS},
            seekers={part: sum(seeker in self.seekers[part] for _, seeker in hashes) for part in PARTS},
        )
        known = frozenset().union(*self.seekers.values())
        return counts, [at for at, (_, seeker) in enumerate(hashes) if seeker not in known]


def see(corpus: Corpus, split: Split, *, key: str) -> Seen:
    """What a run on this split sees; ``key`` is the data's sha256, so that a repeated run writes the same bytes."""
    secret = bytes.fromhex(key)
    found = {part: [_hashes(secret, pair) for pair in take(corpus, split.part(part))] for part in PARTS}
    pairs = {part: frozenset(both for both, _ in hashes) for part, hashes in found.items()}
    return Seen(secret, pairs, {part: frozenset(seeker for _, seeker in hashes) for part, hashes in found.items()})


def write_seen(model: Path, seen: Seen) -> None:
    """Write it into a model's folder, sorted: the order of the data would help guessing."""
    parts = {part: {"pairs": sorted(seen.pairs[part]), "seekers": sorted(seen.seekers[part])} for part in PARTS}
    content = {"format": _FORMAT, "key": seen.key.hex(), **parts}
    (model / SEEN).write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_seen(model: Path) -> Seen | None:
    """What the model in this folder has seen; None for models of earlier versions, which did not keep it.

    Raises:
        KitError: the file holds something else.
    """
    path = model / SEEN
    if not path.is_file():
        return None
    try:
        found = _parse(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        found = None
    if found is None:
        raise KitError(f"{path}: no hashes of training posts found, expected format {_FORMAT}")
    return found


def _parse(content: Any) -> Seen | None:
    key = bytes.fromhex(content["key"])
    pairs, seekers = ({part: content[part][kind] for part in PARTS} for kind in ("pairs", "seekers"))
    lists = [*pairs.values(), *seekers.values()]
    hashes = all(
        isinstance(found, list) and all(isinstance(each, str) and len(each) == 2 * _BYTES for each in found) for found in lists
    )
    if content["format"] != _FORMAT or len(key) != _KEY or not hashes:
        return None
    return Seen(key, *({part: frozenset(found) for part, found in kind.items()} for kind in (pairs, seekers)))


def _hashes(key: bytes, pair: Pair) -> tuple[str, str]:
    """The hash of both posts, and the hash of the seeker post."""
    seeker, response = letters(pair.seeker), letters(pair.response)
    return _hash(key, (seeker, response)), _hash(key, (seeker,))


def _hash(key: bytes, posts: Iterable[str]) -> str:
    return hashlib.blake2b("\0".join(posts).encode(), digest_size=_BYTES, key=key).hexdigest()
