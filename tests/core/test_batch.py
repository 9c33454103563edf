"""Lengths to batches: nothing is lost unseen, nothing stands in two places."""

from __future__ import annotations

from dataclasses import fields

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from empathy_kit.contracts import Texts
from empathy_kit.core.batch import collate_targets, collate_texts, training_order
from empathy_kit.core.scored import inference_order
from empathy_kit.core.tokens import Labels, TokenPair

PAD = 1


def test_a_batch_is_padded_on_the_right_to_its_own_longest_post_or_to_one_length() -> None:
    pairs = [
        TokenPair([0, 7, 2], [0, 8, 9, 2]),
        TokenPair([0, 5, 6, 5, 2], [0, 2]),
    ]
    labels = [Labels((0, 1, 2), ((), (1,), (1, 2)), (True,) * 3), Labels((1, -1, 0), ((0,), (), ()), (False, False, True))]
    texts, targets = collate_texts(pairs, PAD), collate_targets(labels, 4)
    assert texts.seeker.tolist() == [[0, 7, 2, PAD, PAD], [0, 5, 6, 5, 2]]
    assert texts.response.tolist() == [[0, 8, 9, 2], [0, 2, PAD, PAD]]
    assert texts.seeker_mask.sum(1).tolist() == [3, 5]
    assert texts.response_mask.tolist() == [[True] * 4, [True, True, False, False]]
    assert targets.levels.tolist() == [[0, 1, 2], [1, -1, 0]]
    assert targets.gold_known.tolist() == [[True, True, True], [False, False, True]]
    assert targets.gold.nonzero().tolist() == [[0, 1, 1], [0, 2, 1], [0, 2, 2], [1, 0, 0]]
    texts = collate_texts(pairs, PAD, pad_to=7)
    assert texts.seeker.shape == texts.response.shape == (2, 7)
    assert collate_targets(labels, 7).gold.shape == (2, 3, 7)
    assert len(texts) == 2


def test_what_the_model_sees_of_a_batch_is_texts_alone() -> None:
    assert [field.name for field in fields(Texts)] == ["seeker", "seeker_mask", "response", "response_mask"]


@given(lengths=st.lists(st.integers(2, 300), max_size=120), batch_size=st.integers(1, 40), seed=st.integers(0, 9))
@settings(derandomize=True, deadline=None, database=None, max_examples=60)
def test_every_pair_is_in_exactly_one_batch(lengths: list[int], batch_size: int, seed: int) -> None:
    training = training_order(lengths, torch.arange(len(lengths)), batch_size, torch.Generator().manual_seed(seed))
    inference = list(inference_order(lengths, batch_size))
    for batches in (training, inference):
        assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
        assert len(batches) == -(-len(lengths) // batch_size)
        assert all(0 < len(batch) <= batch_size for batch in batches)
    assert [lengths[index] for batch in inference for index in batch] == sorted(lengths, reverse=True)


def test_pairs_that_are_sampled_twice_stand_in_two_places_and_others_in_none() -> None:
    sampled = torch.tensor([0, 0, 2, 2, 2, 5])
    batches = training_order([3, 9, 4, 1, 1, 7], sampled, 4, torch.Generator().manual_seed(0))
    assert sorted(index for batch in batches for index in batch) == sampled.tolist()


def test_the_order_of_training_comes_from_its_generator_alone() -> None:
    lengths = torch.randint(2, 60, (500,), generator=torch.Generator().manual_seed(0)).tolist()
    generator = torch.Generator().manual_seed(1)
    first, second = (
        training_order(lengths, torch.arange(500), 16, generator),
        training_order(lengths, torch.arange(500), 16, generator),
    )
    torch.manual_seed(99)
    assert training_order(lengths, torch.arange(500), 16, torch.Generator().manual_seed(1)) == first
    assert first != second  # each epoch is shuffled anew
    # Like lengths stand together: far less padding than pairs at random would need.
    padding = sum(max(lengths[index] for index in batch) * len(batch) for batch in first) / sum(lengths)
    at_random = sum(max(lengths[start : start + 16]) * len(lengths[start : start + 16]) for start in range(0, 500, 16)) / sum(
        lengths
    )
    assert padding - 1 < 0.4 * (at_random - 1)
    # And training is no curriculum: the batches' mean lengths neither rise nor fall along the epoch.
    means = [sum(lengths[index] for index in batch) / len(batch) for batch in first]
    assert means not in (sorted(means), sorted(means, reverse=True))
