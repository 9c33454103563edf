"""The bi-encoder is the model of the paper."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from empathy_kit_biencoder import bi_encoder, dense
from empathy_kit_biencoder.head import DenseHead
from empathy_kit_biencoder.trunk import BiEncoder
from torch import Tensor, nn

from empathy_kit import Encoded, Injection, KitError, Task, Texts

TASK = Task("ER", ("0", "1", "2"), (60, 30, 10))


class Words(nn.Module):
    """A post encoder with one learnt vector per word."""

    width = 8

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)

    def copy(self, *, frozen: bool = False) -> Words:
        return copy.deepcopy(self).requires_grad_(not frozen)

    def seeker(self, texts: Texts) -> Tensor:
        states: Tensor = self.words(texts.seeker) * texts.seeker_mask[..., None]
        return states

    def response(self, texts: Texts) -> Tensor:
        states: Tensor = self.words(texts.response) * texts.response_mask[..., None]
        return states


class Spans(nn.Module):
    """Injects nothing and shows what it was given, as span logits."""

    def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
        return Injection(response[:, :0], mask[:, :0], response.transpose(1, 2))


def texts() -> Texts:
    """Two pairs; the first seeker post and the second response have padding."""
    seeker, response = torch.tensor([[0, 5, 2, 1], [0, 6, 7, 2]]), torch.tensor([[0, 8, 9, 2], [0, 3, 2, 1]])
    return Texts(seeker, seeker != 1, response, response != 1)


def trunk(make: Callable[[], nn.Module] = Spans) -> BiEncoder:
    torch.manual_seed(0)
    return BiEncoder(Words(), make(), dropout=0.0)


def test_each_response_token_adds_what_it_finds_in_the_seeker_post_word_by_word() -> None:
    model = trunk()
    encoded, spans = model(texts())
    attention, words = model.attention, model.response_encoder.words
    for row, (seeker, response) in enumerate((([0, 5, 2], [0, 8, 9, 2]), ([0, 6, 7, 2], [0, 3, 2]))):
        keys, values = attention.key(words(torch.tensor(seeker))), attention.value(words(torch.tensor(seeker)))
        for place, word in enumerate(response):
            state = words(torch.tensor(word))
            weights = (keys @ attention.query(state) / 8**0.5).softmax(0)
            expected = state + attention.out(weights @ values)
            torch.testing.assert_close(encoded.sequence[row, place], expected)
            torch.testing.assert_close(spans[row, :, place], expected)  # the span head reads what the heads read
    torch.testing.assert_close(encoded.pooled, encoded.sequence[:, 0])
    assert torch.equal(encoded.mask, texts().response_mask)
    assert not encoded.sequence[1, 3].any()


def test_the_response_encoder_learns_and_the_seeker_encoder_never_does() -> None:
    model = trunk().train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], 0.1)
    model(texts())[0].pooled.sum().backward()
    optimizer.step()
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert "response_encoder.words.weight" in changed
    assert "seeker_encoder.words.weight" not in changed
    assert "seeker_encoder.words.weight" in before  # it is saved all the same: a loaded model has no pretrained weights


def test_without_attention_the_response_is_read_alone() -> None:
    model = bi_encoder(Words(), Spans(), dropout=0.0, attention=False)
    posts = texts()
    other = Texts(posts.seeker.flip(1), posts.seeker_mask, posts.response, posts.response_mask)
    torch.testing.assert_close(model(posts)[0].sequence, model.response_encoder.response(posts))
    assert torch.equal(model(posts)[0].sequence, model(other)[0].sequence)
    assert not torch.equal(trunk()(posts)[0].sequence, trunk()(other)[0].sequence)
    assert set(model.state_dict()) == {"response_encoder.words.weight"}


def test_injected_states_stand_after_the_response_for_heads_that_read_all_tokens() -> None:
    class Twice(nn.Module):
        def forward(self, response: Tensor, mask: Tensor, gold: Tensor | None) -> Injection:
            return Injection(response, mask)

    encoded, spans = trunk(Twice)(texts())
    assert spans is None
    assert encoded.mask.tolist() == [[True] * 8, [True, True, True, False] * 2]
    torch.testing.assert_close(encoded.sequence[:, :4], encoded.sequence[:, 4:])


def test_the_head_has_one_hidden_layer_with_a_rectifier() -> None:
    head = DenseHead(8, 3, dropout=0.0)
    for layer in (head.layers[0], head.layers[3]):
        assert not layer.bias.any()
        assert 0.01 < float(layer.weight.detach().std()) < 0.04
    pooled = torch.randn(2, 8)
    first, last = head.layers[0], head.layers[3]
    expected = last(first(pooled).clamp(min=0))
    torch.testing.assert_close(head(Encoded(pooled, pooled[:, None], torch.ones(2, 1, dtype=torch.bool))), expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: bi_encoder(Words(), Spans(), dropout=1.0),
            "trunk bi-encoder: option 'dropout' is 1.0; expected 0 to 0.99",
        ),
        (lambda: dense(TASK, 8, dropout=-0.5), "head dense of ER: option 'dropout' is -0.5; expected 0 to 0.99"),
    ],
)
def test_an_option_out_of_range_is_refused(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(KitError) as error:
        build()
    assert str(error.value) == message
