"""Train, validation and test parts, and folds: grouped by seeker and stratified, or at random as in the paper."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from empathy_kit.data.pairs import Corpus, Pair, class_counts, same_words
from empathy_kit.data.schema import MISSING, Schema
from empathy_kit.errors import KitError, shown

PARTS = ("train", "validation", "test")
FRACTIONS = (0.70, 0.15, 0.15)

Parts = Sequence[Sequence[int]]
"""Positions in ``corpus.pairs``, for each of `PARTS`."""

Groups = Sequence[Sequence[int]]
"""Positions in ``corpus.pairs`` that stay together."""


@dataclass(frozen=True)
class Split:
    """Positions in ``corpus.pairs``, ascending, per part."""

    kind: str
    seed: int
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]
    groups: int = 0  # how many sets of pairs were placed whole; a single pair is one, too
    largest: int = 0  # pairs of the largest
    unused: tuple[int, ...] = ()  # left out of the training part by `thin_out`

    def part(self, name: str) -> tuple[int, ...]:
        """The positions of one part by its name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[name]

    def sha256(self) -> str:
        """A hash of who is where; pairs that were left out of the training part are hashed as its own."""
        whole = sorted((*self.train, *self.unused))
        return hashlib.sha256(json.dumps([whole, self.validation, self.test]).encode()).hexdigest()


def take(corpus: Corpus, positions: Sequence[int]) -> tuple[Pair, ...]:
    """The pairs at these positions."""
    return tuple(corpus.pairs[position] for position in positions)


def split_paper(corpus: Corpus, seed: int) -> tuple[Parts, Groups]:
    """70/15/15 at random over all rows; test takes what the rounding leaves, so 3,084 rows give the paper's 464."""
    order = list(range(len(corpus)))
    random.Random(seed).shuffle(order)
    train, validation = int(FRACTIONS[0] * len(order)), int(FRACTIONS[1] * len(order))
    parts = [order[:train], order[train : train + validation], order[train + validation :]]
    return parts, [[position] for position in range(len(corpus))]


def split_grouped(corpus: Corpus, seed: int) -> tuple[Parts, Groups]:
    """70/15/15 by groups of pairs that share a seeker id or a seeker post, every label of every task spread evenly."""
    return _place(corpus, seed, FRACTIONS)


def _place(corpus: Corpus, seed: int, fractions: Sequence[float]) -> tuple[Parts, Groups]:
    """Parts of these sizes, by groups of pairs that share a seeker id or a seeker post, every label spread evenly.

    Iterative stratification (Sechidis et al., ECML 2011) over groups in place of rows: the rarest label that is still to be
    placed goes first, each group to the part that lacks this label most. Groups without any label come last, each to the part
    that lacks rows most.

    Groups are placed in the seed's order, never by size: placed first, the seekers who wrote several times would all fall into
    the training part, which lacks most.
    """
    groups = by_seeker(corpus.pairs)
    whole = [*groups]
    random.Random(seed).shuffle(groups)
    levels = [[_labels(corpus.pairs[position]) for position in group] for group in groups]
    waiting: dict[tuple[int, int], list[int]] = defaultdict(list)  # label to groups that hold it
    for number, rows in enumerate(levels):
        for label in sorted(set().union(*rows)):
            waiting[label].append(number)
    size = {label: sum(sum(label in row for row in levels[g]) for g in held) for label, held in waiting.items()}
    lack_rows = [fraction * len(corpus) for fraction in fractions]
    lack = [{label: fraction * count for label, count in size.items()} for fraction in fractions]
    parts: list[list[int]] = [[] for _ in fractions]
    unplaced = set(range(len(groups)))

    def place(number: int, best: int) -> None:
        for position, row in zip(groups[number], levels[number], strict=True):
            parts[best].append(position)
            lack_rows[best] -= 1
            for held in row:
                lack[best][held] -= 1
        unplaced.discard(number)

    # The rarest first, by its size in the whole corpus: placing it while the parts are empty is what makes it come out even.
    for label in sorted(size, key=lambda label: (size[label], label)):
        for number in waiting[label]:
            if number in unplaced:  # not placed with a rarer label
                place(number, max(range(len(parts)), key=lambda part: (lack[part][label], lack_rows[part], -part)))
    for number in sorted(unplaced):
        place(number, max(range(len(parts)), key=lambda part: (lack_rows[part], -part)))
    return parts, whole


SPLITS: dict[str, Callable[[Corpus, int], tuple[Parts, Groups]]] = {"grouped": split_grouped, "paper": split_paper}


def make_split(corpus: Corpus, kind: str, seed: int, tasks: Schema | None = None) -> Split:
    """Split a corpus.

    Args:
        corpus: what to split.
        kind: one of `SPLITS`.
        seed: which of its many.
        tasks: whose labels must stand in every part, all by default; the split itself is the same whatever they are.

    Raises:
        KitError: an unknown kind, or a split that leaves a part empty or without a label of these tasks.
    """
    if kind not in SPLITS:
        raise KitError(f"--split {kind}: unknown, expected {' or '.join(SPLITS)}")
    parts, groups = SPLITS[kind](corpus, seed)
    _check(corpus, kind, parts, groups, tasks or corpus.schema)
    train, validation, test = (tuple(sorted(part)) for part in parts)
    return Split(kind, seed, train, validation, test, groups=len(groups), largest=max(map(len, groups)))


def thin_out(corpus: Corpus, split: Split, share: float, tasks: Schema | None = None) -> Split:
    """The split with a share of its training part's seekers, for learning curves; the other parts stay as they are.

    Seekers are left out in an order that the split's seed draws, so that a smaller share's seekers are among a larger one's.

    Args:
        corpus: what was split.
        split: its parts.
        share: of the groups of pairs that share a seeker id or a seeker post, above 0; rounded up to whole groups.
        tasks: whose labels must all be left, all by default.

    Raises:
        KitError: a label of these tasks is not left.
    """
    if share >= 1:
        return split
    groups = by_seeker(take(corpus, split.train))
    random.Random(f"share {split.seed}").shuffle(groups)
    kept = sorted(split.train[at] for group in groups[: math.ceil(share * len(groups))] for at in group)
    for task in (tasks or corpus.schema).tasks:
        counts = class_counts(take(corpus, kept), corpus.schema)[task.name]
        if 0 in counts:
            label = shown(task.labels[counts.index(0)])
            raise KitError(
                f"--train-share {share}: no pair with {task.name} label {label} is left in the training part ({len(kept)} of "
                f"{len(split.train)} pairs), expected at least one of each label; use a larger share, or another --split-seed"
            )
    return replace(split, train=tuple(kept), unused=tuple(sorted({*split.train} - {*kept})))


def hold_out(corpus: Corpus, fraction: float, seed: int) -> Split:
    """A training and a validation part, grouped as `split_grouped` groups; the test part is empty.

    Where the pairs are too few for a validation part with a label of every task, and a training part with every label, all
    are in the training part.
    """
    parts, groups = _place(corpus, seed, (1 - fraction, fraction))
    train, validation = (class_counts(take(corpus, part), corpus.schema) for part in parts)
    if not all(map(all, train.values())) or not all(map(any, validation.values())):
        parts = [range(len(corpus)), ()]
    return Split("grouped", seed, tuple(sorted(parts[0])), tuple(sorted(parts[1])), (), len(groups), max(map(len, groups)))


def make_folds(corpus: Corpus, count: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Parts of like size for cross-validation, grouped as `split_grouped` groups, every label spread evenly.

    Raises:
        KitError: fewer groups than folds, or a label in one fold alone, which the other folds' pairs cannot teach.
    """
    where = f"--folds {count} of {corpus.name}"
    if count < 2:
        raise KitError(f"--folds {count}: expected 2 or more")
    groups = by_seeker(corpus.pairs)
    if len(groups) < count:
        held = f"{len(corpus)} pairs in {_groups_of(len(groups))}"
        raise KitError(f"{where}: {held}, expected at least {count}; use fewer folds, or more seekers")
    parts, _ = _place(corpus, seed, (1 / count,) * count)
    for index, task in enumerate(corpus.schema.tasks):
        for level, label in enumerate(task.labels):
            homes = sum(any(corpus.pairs[position].levels[index] == level for position in part) for part in parts)
            if homes < 2:
                found = sum(pair.levels[index] == level for pair in corpus.pairs)
                holders = _holders(corpus, groups, index, (level,))
                held = f", in {_groups_of(holders)}" if holders < found else ""
                advice = "another --seed may help" if holders > 1 else "more are needed"
                without = f", or --tasks without {task.name}" if len(corpus.schema) > 1 else ""
                raise KitError(
                    f"{where}: {homes} of the folds with {task.name} label {shown(label)} (the data has {found}{held}), expected "
                    f"at least 2; {advice}{without}"
                )
    return tuple(tuple(sorted(part)) for part in parts)


def _labels(pair: Pair) -> set[tuple[int, int]]:
    """The labels that a pair has: (task, level)."""
    return {(task, level) for task, level in enumerate(pair.levels) if level != MISSING}


def by_seeker(pairs: Sequence[Pair]) -> list[list[int]]:
    """Positions of one seeker each, which stay together: linked by seeker id or the seeker post's words, or through others."""
    root = list(range(len(pairs)))

    def find(position: int) -> int:
        while root[position] != position:
            root[position] = root[root[position]]
            position = root[position]
        return position

    first: dict[str | bytes, int] = {}  # a seeker id is text, a key to the words of a post is not
    for position, pair in enumerate(pairs):
        keys: list[str | bytes] = [same_words(pair.seeker), *([pair.seeker_id] if pair.seeker_id else [])]
        for key in keys:
            root[find(position)] = find(first.setdefault(key, position))
    groups: dict[int, list[int]] = defaultdict(list)
    for position in range(len(pairs)):
        groups[find(position)].append(position)
    return sorted(groups.values())


def _check(corpus: Corpus, kind: str, parts: Parts, groups: Groups, tasks: Schema) -> None:
    where = f"--split {kind} of {corpus.name}"
    together = len(groups) < len(corpus)
    for name, part in zip(PARTS, parts, strict=True):
        if not part:
            held = f" in {_groups_of(len(groups))}" if together else ""
            more = "more seekers" if together else "more"
            raise KitError(f"{where}: the {name} part is empty ({len(corpus)} pairs{held}); {more} are needed")
    counts = [class_counts(take(corpus, part), corpus.schema) for part in parts]
    for task in tasks.tasks:
        whole = [sum(levels) for levels in zip(*(part[task.name] for part in counts), strict=True)]
        index = corpus.schema.index(task.name)
        for name, part in zip(PARTS, (part[task.name] for part in counts), strict=True):
            level = next((level for level, count in enumerate(part) if not count and (name == "train" or whole[level])), None)
            if level is None:
                continue
            if not any(part):
                what, found = f"labelled for {task.name}", sum(whole)
                holders = _holders(corpus, groups, index, range(len(part)))
            else:
                what, found = f"with {task.name} label {shown(task.labels[level])}", whole[level]
                holders = _holders(corpus, groups, index, (level,))
            held = f", in {_groups_of(holders)}" if holders < found else ""
            # Of three or four, the grouped split gives the training part all but one, whatever its seed.
            enough = len(PARTS) if kind == "paper" else len(PARTS) + 2
            advice = "another --split-seed may help" if holders >= enough else "more are needed"
            without = f", or --tasks without {task.name}" if len(tasks) > 1 else ""
            raise KitError(
                f"{where}: the {name} part has no pair {what} (the data has {found}{held}), expected at least one in each part; "
                f"{advice}{without}"
            )


def _holders(corpus: Corpus, groups: Groups, task: int, levels: Sequence[int]) -> int:
    """How many groups have a pair with one of these levels."""
    return sum(any(corpus.pairs[position].levels[task] in levels for position in group) for group in groups)


def _groups_of(count: int) -> str:
    return f"{count} group{'s' * (count != 1)} that share a seeker id or seeker post"


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
