"""The bundled corpus is what its README promises: varied, annotated, and as imbalanced as the real data."""

from __future__ import annotations

import json
from importlib import resources
from statistics import median

import pytest

from empathy_kit.data.pairs import Corpus, class_counts, duplicates, same_words, unescape
from empathy_kit.data.schema import EPITOME
from empathy_kit.data.sources import load_corpus

REAL_SHARES = {"ER": (0.66, 0.29, 0.05), "EX": (0.84, 0.03, 0.12), "IP": (0.53, 0.04, 0.44)}
FOLDER = resources.files("empathy_kit.data") / "sample"


@pytest.fixture(scope="module")
def sample() -> Corpus:
    return load_corpus("sample")


def test_it_is_large_enough_and_varied(sample: Corpus) -> None:
    assert len(sample) >= 240
    assert len({pair.seeker_id for pair in sample.pairs} - {""}) >= 200
    assert len({same_words(pair.response) for pair in sample.pairs}) == len(sample)
    assert duplicates(sample).groups == 0
    lengths = sorted(len(pair.response.split()) for pair in sample.pairs)
    assert lengths[0] < median(lengths) / 2
    assert lengths[-1] > 2 * median(lengths)


@pytest.mark.parametrize("mechanism", EPITOME.names)
def test_its_levels_are_as_rare_as_in_the_real_data(sample: Corpus, mechanism: str) -> None:
    counts = class_counts(sample.pairs, EPITOME)[mechanism]
    assert all(counts)
    for count, share in zip(counts, REAL_SHARES[mechanism], strict=True):
        assert abs(count / len(sample) - share) <= 0.03


def test_every_span_is_an_exact_substring_and_every_level_above_0_has_one(sample: Corpus) -> None:
    assert sample.placement.exact == sample.placement.total > 0
    assert (sample.placement.lost, sample.placement.bare) == ((), ())
    lines = (FOLDER / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    for pair, line in zip(sample.pairs, lines, strict=True):
        cells = json.loads(line)
        for index, mechanism in enumerate(EPITOME.names):
            assert bool(cells[f"{mechanism}_spans"]) == (pair.levels[index] > 0)
            placed = [pair.response[span.start : span.end] for span in pair.spans[index]]
            assert placed == [unescape(text).strip() for text in cells[f"{mechanism}_spans"]]


def test_its_readme_says_what_is_in_it_and_on_what_terms(sample: Corpus) -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"{len(sample)} pairs" in readme
    assert f"{len({pair.seeker_id for pair in sample.pairs})} seekers" in readme
    assert "CC0 1.0" in readme
