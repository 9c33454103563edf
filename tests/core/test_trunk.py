"""The built-in trunks: the GRU reads in order, the mean knows no order, and both read real states alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from empathy_kit import Injection, KitError, Task, Texts, Trunk
from empathy_kit.builtin.heads import attention, linear
from empathy_kit.builtin.trunks import gru, mean
from empathy_kit.core.rationales import NoRationale, PredictedRationale
from empathy_kit.core.trunk import real_first
from empathy_kit.testing import Check, trunk_checks

# With their defaults, tests/testing/test_conformance_kit.py judges them.
PROMISES = [
    pytest.param(check, id=f"{spec.name}-{check}")
    for spec, options in (
        (Trunk("gru", gru), {"hidden": 5, "layers": 1, "dropout": 0.0}),
        (Trunk("mean", mean), {"hidden": 5, "dropout": 0.0}),
    )
    for check in trunk_checks(spec, options=options)
]


@pytest.mark.parametrize("check", PROMISES)
def test_promise(check: Check) -> None:
    check()


class Words(nn.Module):
    """A post encoder whose states are two numbers per word."""

    width = 2

    def forward(self, texts: Texts) -> tuple[Tensor, Tensor]:
        return states_of(texts.seeker, texts.seeker_mask), states_of(texts.response, texts.response_mask)


def states_of(words: Tensor, mask: Tensor) -> Tensor:  # (B, L) -> (B, L, 2)
    return torch.stack([words / 10, (words % 3) / 3], -1) * mask[..., None]


def texts(*pairs: tuple[list[int], list[int]]) -> Texts:
    sides = []
    for side in zip(*pairs, strict=True):
        longest = max(map(len, side))
        sides.append(torch.tensor([[*post, *[1] * (longest - len(post))] for post in side]))
        sides.append(torch.arange(longest) < torch.tensor([[len(post)] for post in side]))
    return Texts(*sides)


def trunk(build: Any, injector: nn.Module | None = None, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    built: nn.Module = build(Words(), injector or NoRationale(), hidden=4, dropout=0.0, **options)
    return built


def test_real_states_move_to_the_front_in_their_order_and_common_padding_is_cut_off() -> None:
    states = torch.arange(8).view(2, 4, 1)
    mask = torch.tensor([[False, True, False, False], [True, False, False, True]])
    front, kept = real_first(states, mask)
    assert kept.tolist() == [[True, False], [True, True]]
    assert front[..., 0].tolist() == [[1, 0], [4, 7]]


def test_the_gru_reads_seeker_then_response_then_rationale_without_gaps() -> None:
    class Noted(nn.Module):
        """Injects a note after the first pair's response, and nothing for the second."""

        def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
            return Injection(states_of(torch.tensor([[9], [8]]), mask[:, :1]), torch.tensor([[True], [False]]))

    shared = trunk(gru, Noted(), layers=1)
    encoded, _ = shared(texts(([7, 8], [5]), ([3], [4, 6])))
    assert encoded.mask.tolist() == [[True, True, True, True], [True, True, True, False]]
    for row, words in enumerate(([7, 8, 5, 9], [3, 4, 6])):
        outputs, last = shared.gru(states_of(torch.tensor([words]), torch.ones(1, len(words))))  # type: ignore[operator]
        torch.testing.assert_close(encoded.sequence[row, : len(words)], outputs[0])
        torch.testing.assert_close(encoded.pooled[row], last[-1, 0])
    assert not encoded.sequence[1, 3].any()


def test_the_mean_is_the_sum_of_both_posts_means_of_tanh_of_a_layer_of_their_own() -> None:
    shared = trunk(mean)
    encoded, _ = shared(texts(([7, 8], [5]), ([3], [4, 6, 2])))
    for row, (seeker, response) in enumerate((([7, 8], [5]), ([3], [4, 6, 2]))):
        sides = [
            layer(states_of(torch.tensor(words), torch.ones(len(words)))).tanh()  # type: ignore[operator]
            for layer, words in ((shared.seeker, seeker), (shared.response, response))
        ]
        torch.testing.assert_close(encoded.sequence[row, encoded.mask[row]], torch.cat(sides))
        torch.testing.assert_close(encoded.pooled[row], sides[0].mean(0) + sides[1].mean(0))


def test_the_mean_knows_no_order_but_which_post_a_word_stands_in() -> None:
    plain, turned, moved = ([3, 4, 5], [6, 7, 8]), ([5, 3, 4], [8, 7, 6]), ([6, 7, 8], [3, 4, 5])
    one, other, exchanged = trunk(mean)(texts(plain, turned, moved))[0].pooled
    torch.testing.assert_close(one, other)
    assert (one - exchanged).abs().max() > 0.01
    one, other, exchanged = trunk(gru)(texts(plain, turned, moved))[0].pooled
    assert (one - other).abs().max() > 0.001


def test_the_mean_reads_the_rationale_as_a_part_of_the_response() -> None:
    batch = texts(([3, 4], [6, 7, 8]), ([3], [5]))
    injector = PredictedRationale(3, 2)
    shared = trunk(mean, injector)
    encoded, spans = shared(batch)
    _, response = Words()(batch)
    injected = injector(response, batch.response_mask, None).states
    read = shared.response(torch.cat([response[0], injected[0]])).tanh()  # type: ignore[operator]
    seeker = shared.seeker(states_of(torch.tensor([3, 4]), torch.ones(2))).tanh()  # type: ignore[operator]
    torch.testing.assert_close(encoded.pooled[0], read.mean(0) + seeker.mean(0))
    assert spans is not None
    assert spans.shape == (2, 3, 3)


@pytest.mark.parametrize("build", [gru, mean])
@pytest.mark.parametrize("head", [linear, attention])
def test_both_heads_learn_through_both_trunks(build: Any, head: Any) -> None:
    shared = trunk(build)
    logits = head(Task("ER", ("0", "1", "2"), (3, 2, 1)), 4)(shared(texts(([3, 4], [6]), ([3], [5, 6, 7])))[0])
    assert logits.shape == (2, 3)
    logits[:, 0].sum().backward()
    assert all(parameter.grad is not None for parameter in shared.parameters())


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (gru, {"hidden": 0}, "trunk gru: option 'hidden' is 0; expected 1 to 65536"),
        (gru, {"layers": 65}, "trunk gru: option 'layers' is 65; expected 1 to 64"),
        (gru, {"dropout": 1.5}, "trunk gru: option 'dropout' is 1.5; expected 0 to 0.99"),
        (mean, {"hidden": 65537}, "trunk mean: option 'hidden' is 65537; expected 1 to 65536"),
        (mean, {"dropout": -0.1}, "trunk mean: option 'dropout' is -0.1; expected 0 to 0.99"),
    ],
)
def test_an_option_out_of_range_is_refused(build: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(KitError) as error:
        build(Words(), NoRationale(), **options)
    assert str(error.value) == message
