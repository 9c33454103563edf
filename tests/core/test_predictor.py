"""Predicting: no labels, any number of pairs, in their order, from several threads, at several precisions."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pickle import dumps, loads

import numpy as np
import pytest
import torch
from small import NAMES, TRAIN, VALIDATION, Small, make_examples, make_model
from torch import Tensor

from empathy_kit.core import predictor as module
from empathy_kit.core.heads import LinearHead
from empathy_kit.core.predictor import Predictor
from empathy_kit.core.rationales import TaggedRationale
from empathy_kit.core.scored import Scored
from empathy_kit.core.tokens import TokenPair
from empathy_kit.errors import NotFinite


def stacked(predictions: list[Scored], name: str) -> np.ndarray:
    return np.stack([each.probabilities[name] for each in predictions])


def test_it_says_what_an_evaluation_says_to_the_bit() -> None:
    small = Small(model=make_model(injector=TaggedRationale(2, 16)))
    small.fit()
    said, found = small.evaluate(), list(Predictor(small.model, pad_id=1).predict(VALIDATION.texts))
    for name in NAMES:
        assert np.array_equal(stacked(found, name), said.probabilities[name])
    assert said.spans is not None
    for each, spans, pair in zip(found, said.spans, VALIDATION.texts, strict=True):
        assert each.evidence is not None
        assert each.evidence.shape == (2, len(pair.response))
        assert np.array_equal(each.evidence > 0.5, spans)


def test_it_has_no_way_to_be_given_labels() -> None:
    assert set(inspect.signature(Predictor.predict).parameters) == {"self", "pairs"}
    source = inspect.getsource(module)
    assert not any(word in source for word in ("Labels", "Targets", "Examples", "gold", "criteri"))


def test_pairs_keep_their_order_whatever_it_is() -> None:
    model = make_model()
    forward = list(Predictor(model, pad_id=1, batch_size=3).predict(VALIDATION.texts))
    backward = list(Predictor(model, pad_id=1).predict(VALIDATION.texts[::-1]))[::-1]
    for name in NAMES:
        np.testing.assert_allclose(stacked(forward, name), stacked(backward, name), atol=1e-6)
        assert np.ptp(stacked(forward, name)[:, 0]) > 1e-4
    assert forward[0].evidence is None


def test_nothing_in_nothing_out() -> None:
    assert list(Predictor(make_model(), pad_id=1).predict([])) == []


def test_it_reads_ahead_no_further_than_its_window() -> None:
    read = 0

    def endless() -> Iterator[TokenPair]:
        nonlocal read
        for pair in itertools.cycle(TRAIN.texts):
            read += 1
            yield pair

    found = Predictor(make_model(), pad_id=1, window=10).predict(endless())
    for _ in range(25):
        next(found)
    assert read == 30


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_probabilities_that_are_no_numbers_are_refused_and_never_a_level(value: float) -> None:
    """The likeliest of NaN is the first label, with a probability that no bound finds too small."""

    class Divides(LinearHead):
        def probabilities(self, logits: Tensor) -> Tensor:
            wrong = torch.tensor([tuple(pair.response) == tuple(texts[13].response) for pair in batch])
            return torch.where(wrong[:, None], value, super().probabilities(logits))

    class Watching(Predictor):
        def _score(self, pairs: Sequence[TokenPair]) -> Iterator[Scored]:
            batch[:] = pairs
            return super()._score(pairs)

    batch: list[TokenPair] = []
    texts = VALIDATION.texts
    assert [tuple(pair.response) for pair in texts].count(tuple(texts[13].response)) == 1
    model = make_model(heads={"ER": LinearHead(12, 2), "EX": Divides(12, 2)})
    found = Watching(model, pad_id=1, batch_size=3, window=10).predict(texts)
    assert len([next(found) for _ in range(10)]) == 10  # those that were read before
    with pytest.raises(NotFinite) as error:
        next(found)
    sent = loads(dumps(error.value))  # as from one process to another
    assert (error.value.first, sent.first, str(sent)) == (3, 3, str(error.value))
    assert str(error.value) == (
        "EX: the probabilities of 1 of 10 pairs are no finite numbers; "
        "the model or a plugin is at fault; after --precision fp16 try --device cpu, otherwise train it again"
    )


def test_predicting_leaves_the_random_state_alone() -> None:
    predictor = Predictor(make_model(), pad_id=1)
    before = torch.random.get_rng_state()
    list(predictor.predict(VALIDATION.texts))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_two_precisions_live_in_one_process() -> None:
    texts = VALIDATION.texts
    whole, half = (Predictor(make_model(), pad_id=1, precision=precision) for precision in ("no", "bf16"))
    first, other, again = list(whole.predict(texts)), list(half.predict(texts)), list(whole.predict(texts))
    for name in NAMES:
        assert np.array_equal(stacked(first, name), stacked(again, name))
        assert not np.array_equal(stacked(first, name), stacked(other, name))
        np.testing.assert_allclose(stacked(first, name), stacked(other, name), atol=0.02)


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_threads_may_share_one(precision: str) -> None:
    predictor = Predictor(make_model(injector=TaggedRationale(2, 16)), pad_id=1, precision=precision, batch_size=4)  # type: ignore[arg-type]
    parts = [make_examples(30, seed).texts for seed in range(8)]
    expected = [list(predictor.predict(part)) for part in parts]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda part: list(predictor.predict(part)), parts))
    for one, other in zip(found, expected, strict=True):
        for name in NAMES:
            assert np.array_equal(stacked(one, name), stacked(other, name))
