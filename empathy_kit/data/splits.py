"""Train, validation and test parts: grouped by seeker and stratified, or at random as in the paper."""

from __future__ import annotations

import hashlib
import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from empathy_kit.data.pairs import LEVELS, Corpus, Pair, class_counts, same_words
from empathy_kit.errors import KitError

PARTS = ("train", "validation", "test")
FRACTIONS = (0.70, 0.15, 0.15)


@dataclass(frozen=True)
class Split:
    """Positions in ``corpus.pairs``, ascending, a part."""

    kind: str
    seed: int
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    def part(self, name: str) -> tuple[int, ...]:
        """The positions of one part by its name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def sha256(self) -> str:
        """A hash of who is where."""
        return hashlib.sha256(json.dumps([self.train, self.validation, self.test]).encode()).hexdigest()


def take(corpus: Corpus, positions: Sequence[int]) -> tuple[Pair, ...]:
    """The pairs at these positions."""
    return tuple(corpus.pairs[position] for position in positions)


def split_paper(corpus: Corpus, seed: int) -> Split:
    """70/15/15 at random over all rows; test takes what the rounding leaves, so 3,084 rows give the paper's 464."""
    order = list(range(len(corpus)))
    random.Random(seed).shuffle(order)
    train, validation = int(FRACTIONS[0] * len(order)), int(FRACTIONS[1] * len(order))
    return _checked(
        corpus,
        "paper",
        seed,
        [order[:train], order[train : train + validation], order[train + validation :]],
    )


def split_grouped(corpus: Corpus, seed: int) -> Split:
    """70/15/15 by groups of pairs that share a seeker id or a seeker post, every level of every mechanism spread evenly.

    Iterative stratification (Sechidis et al., ECML 2011) over groups in place of rows: the rarest level that is still to be
    placed goes first, each group to the part that lacks this level most.
    """
    groups = _groups(corpus.pairs)
    random.Random(seed).shuffle(groups)
    levels = [[set(_labels(corpus.pairs[position])) for position in group] for group in groups]
    waiting: dict[tuple[int, int], list[int]] = defaultdict(list)  # label to groups that hold it
    for number, rows in enumerate(levels):
        for label in sorted(set().union(*rows)):
            waiting[label].append(number)
    size = {label: sum(sum(label in row for row in levels[g]) for g in held) for label, held in waiting.items()}
    lack_rows = [fraction * len(corpus) for fraction in FRACTIONS]
    lack = [{label: fraction * count for label, count in size.items()} for fraction in FRACTIONS]
    parts: list[list[int]] = [[], [], []]
    # The rarest first, by its size in the whole corpus: placing it while the parts are empty is what makes it come out even.
    for label in sorted(size, key=lambda label: (size[label], label)):
        # Large groups first, or the last one overfills its part. The sort is stable, so equals keep the seed's order.
        for number in sorted(waiting[label], key=lambda g: -len(groups[g])):
            if not groups[number]:
                continue  # placed with a rarer level
            best = max(range(len(PARTS)), key=lambda part: (lack[part][label], lack_rows[part], -part))
            for position, row in zip(groups[number], levels[number], strict=True):
                parts[best].append(position)
                lack_rows[best] -= 1
                for held in row:
                    lack[best][held] -= 1
            groups[number] = []
    return _checked(corpus, "grouped", seed, parts)


SPLITS: dict[str, Callable[[Corpus, int], Split]] = {"grouped": split_grouped, "paper": split_paper}


def make_split(corpus: Corpus, kind: str, seed: int) -> Split:
    """Split a corpus.

    Raises:
        KitError: an unknown kind, or a split that leaves a part empty or a level out of the training part.
    """
    if kind not in SPLITS:
        raise KitError(f"--split {kind}: unknown, expected {' or '.join(SPLITS)}")
    return SPLITS[kind](corpus, seed)


def _labels(pair: Pair) -> list[tuple[int, int]]:
    return list(enumerate(pair.levels))


def _groups(pairs: Sequence[Pair]) -> list[list[int]]:
    """Positions that must stay together: linked by seeker id or the seeker post's words, directly or through others."""
    root = list(range(len(pairs)))

    def find(position: int) -> int:
        while root[position] != position:
            root[position] = root[root[position]]
            position = root[position]
        return position

    first: dict[tuple[str, str], int] = {}
    for position, pair in enumerate(pairs):
        keys = [("post", same_words(pair.seeker))] + ([("seeker", pair.seeker_id)] if pair.seeker_id else [])
        for key in keys:
            root[find(position)] = find(first.setdefault(key, position))
    groups: dict[int, list[int]] = defaultdict(list)
    for position in range(len(pairs)):
        groups[find(position)].append(position)
    return sorted(groups.values())


def _checked(corpus: Corpus, kind: str, seed: int, parts: Sequence[Sequence[int]]) -> Split:
    for name, part in zip(PARTS, parts, strict=True):
        if not part:
            raise KitError(f"--split {kind} of {corpus.name}: the {name} part is empty ({len(corpus)} pairs); more are needed")
    for name, part in zip(PARTS, parts, strict=True):
        for mechanism, counts in class_counts(take(corpus, part)).items():
            whole = class_counts(corpus.pairs)[mechanism]
            for level, count in enumerate(counts):
                if not count and (name == "train" or whole[level]):
                    raise KitError(
                        f"--split {kind} of {corpus.name}: the {name} part has no pair with {mechanism} level {LEVELS[level]} "
                        f"(the data has {whole[level]}); expected at least one in each part"
                        + (": another --split-seed may help" if whole[level] >= len(PARTS) else "")
                    )
    return Split(kind, seed, *(tuple(sorted(part)) for part in parts))


@dataclass(frozen=True)
class Leakage:
    """How much of one part was already in the training part, in pairs."""

    pairs: int  # both posts, word for word
    seekers: int  # the seeker post or seeker id
    responses: int  # the response post


def leakage(corpus: Corpus, split: Split, part: str) -> Leakage:
    """What a part shares with the training part."""
    train = take(corpus, split.train)
    both = {(same_words(pair.seeker), same_words(pair.response)) for pair in train}
    posts, responses = {key[0] for key in both}, {key[1] for key in both}
    seekers = {pair.seeker_id for pair in train if pair.seeker_id}
    pairs = take(corpus, split.part(part))
    return Leakage(
        pairs=sum((same_words(pair.seeker), same_words(pair.response)) in both for pair in pairs),
        seekers=sum(same_words(pair.seeker) in posts or pair.seeker_id in seekers for pair in pairs),
        responses=sum(same_words(pair.response) in responses for pair in pairs),
    )
