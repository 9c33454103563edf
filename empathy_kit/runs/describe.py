"""Descriptions of the data, of a split and of truncation, as plain values for records and tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from empathy_kit.config import RunConfig
from empathy_kit.data.pairs import Corpus, class_counts, duplicates
from empathy_kit.data.splits import PARTS, Split, leakage, take
from empathy_kit.encoders import encoder_source
from empathy_kit.runs.build import flags_named

MOST_ROWS = 5
"""Rows of a task that a record names; a table with few annotated spans has as many without one as it has pairs."""


def describe_data(corpus: Corpus, *, most_rows: int | None = MOST_ROWS) -> dict[str, Any]:
    """Counts of what the data has, and of what cannot be used, with the first rows of it; None names every row."""
    repeated = duplicates(corpus)
    placement = corpus.placement
    return {
        "name": corpus.name,
        "pairs": len(corpus),
        "sha256": corpus.sha256(),
        "sources": corpus.sources,
        "class_counts": class_counts(corpus.pairs, corpus.schema),
        "seeker_posts": len({pair.seeker for pair in corpus.pairs}),
        "duplicates": asdict(repeated),
        "spans": {
            "total": placement.total,
            "exact": placement.exact,
            "whitespace": placement.whitespace,
            "fuzzy": placement.fuzzy,
            "lost": _by_task(placement.lost, most_rows),
            "bare": _by_task(placement.bare, most_rows),
            "unlabelled": placement.unlabelled,
        },
        "columns": {"read": list(corpus.columns_read), "ignored": corpus.columns_ignored},
    }


def _by_task(entries: Iterable[tuple[int, str]], most_rows: int | None) -> dict[str, dict[str, Any]]:
    """Per task how many entries there are, and their rows."""
    rows: dict[str, list[int]] = {}
    for row, task in entries:
        rows.setdefault(task, []).append(row)
    return {task: {"count": len(found), "rows": found[:most_rows]} for task, found in rows.items()}


def describe_split(corpus: Corpus, split: Split) -> dict[str, Any]:
    """Sizes, class counts and leakage of a split."""
    return {
        "kind": split.kind,
        "seed": split.seed,
        "sha256": split.sha256(),
        "pairs": {name: len(split.part(name)) for name in PARTS},
        **({"unused": len(split.unused)} if split.unused else {}),
        "groups": split.groups,
        "largest_group": split.largest,
        "class_counts": {name: class_counts(take(corpus, split.part(name)), corpus.schema) for name in PARTS},
        "leakage": {name: asdict(leakage(corpus, split, name)) for name in PARTS[1:]},
    }


def describe_truncation(config: RunConfig, corpus: Corpus) -> dict[str, Any]:
    """What truncation removes, counted in tokens of the run's encoder."""
    from empathy_kit.core.encoder import load_tokenizer
    from empathy_kit.core.tokens import Tokenization

    source = encoder_source(config.encoder)
    with flags_named():
        tokenizer = load_tokenizer(source.location, local=source.local)
    return asdict(Tokenization(tokenizer, config.max_tokens, config.truncate).encode_labelled(corpus.pairs)[1])
