"""Descriptions of the data, of a split and of truncation, as plain values for records and tables."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from empathy_kit.config import RunConfig
from empathy_kit.data.pairs import Corpus, class_counts, duplicates
from empathy_kit.data.splits import PARTS, Split, leakage, take
from empathy_kit.encoders import encoder_source
from empathy_kit.runs.build import flags_named


def describe_data(corpus: Corpus) -> dict[str, Any]:
    """Counts of what the data has, and of what cannot be used."""
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
            "lost": [list(entry) for entry in placement.lost],
            "bare": [list(entry) for entry in placement.bare],
            "unlabelled": placement.unlabelled,
        },
        "columns": {"read": list(corpus.columns_read), "ignored": corpus.columns_ignored},
    }


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
