"""The model: what it says of a pair depends on that pair alone - not on padding, neighbours or how the encoder is called."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from empathy_kit import Head, Rationale, Task
from empathy_kit.contracts import Texts
from empathy_kit.core import unpadded as unpadded_module
from empathy_kit.core.batch import Examples, collate_targets, collate_texts
from empathy_kit.core.encoder import load_encoder, longest_input
from empathy_kit.core.model import Model, Output
from empathy_kit.core.posts import PostEncoder
from empathy_kit.core.rationales import GoldRationale
from empathy_kit.core.tokens import Labels, Tokenization, TokenPair
from empathy_kit.core.trunk import GRUTrunk
from empathy_kit.data.sources import load_corpus
from empathy_kit.plugins import load_registry

DRIFT = 1e-5
PAD = 1
TASKS = [Task(name, ("0", "1", "2"), (5, 3, 2)) for name in ("ER", "EX", "IP")]
RATIONALES = ("none", "gold", "train-only", "predicted", "tag")
HEADS = ("linear", "attention")
WITH_SPAN_HEAD = ("predicted", "tag")


@pytest.fixture(scope="module")
def pairs(tiny_roberta: Path) -> Examples:
    """Twelve pairs of the sample from short to long, and one whose posts are empty and read like padding."""
    _, tokenizer = load_encoder(str(tiny_roberta), local=True)
    corpus = sorted(load_corpus("sample").pairs, key=lambda pair: len(pair.response))[:: len(load_corpus("sample")) // 12][:12]
    examples, _ = Tokenization(tokenizer, 48, "head-tail").encode_labelled(corpus)
    assert max(len(pair.response) for pair in examples.texts) > 3 * min(len(pair.response) for pair in examples.texts)
    return with_empty(examples)


def with_empty(examples: Examples) -> Examples:
    empty, nothing = TokenPair([0, 2], [0, 2]), Labels((0, 0, 0), ((), (), ()), (True, True, True))
    return Examples((*examples.texts, empty), (*examples.labels, nothing))


def build(folder: Path, rationale: str = "none", head: str = "linear") -> Model:
    registry = load_registry()
    torch.manual_seed(3)
    encoder, _ = load_encoder(str(folder), local=True)
    injector, spec = registry.get("rationale", rationale).spec, registry.get("head", head).spec
    assert isinstance(injector, Rationale)
    assert isinstance(spec, Head)
    posts = PostEncoder(encoder)
    shared = GRUTrunk(posts, injector.build(TASKS, posts.width), hidden=24, layers=2, dropout=0.3)
    return Model(shared, {task.name: spec.build(task, 24) for task in TASKS})


def says(model: Model, pairs: Examples, *, gold: bool, pad_to: int | None = None) -> tuple[Tensor, Tensor | None]:
    """Logits (B, T, C), and span logits (B, T, L)."""
    texts = collate_texts(pairs.texts, PAD, pad_to)
    targets = collate_targets(pairs.labels, texts.response.shape[1])
    with torch.inference_mode():
        output: Output = model(texts, targets.gold if gold else None)
    return torch.stack(list(output.logits.values()), dim=1), output.span_logits


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("rationale", RATIONALES)
def test_logits_do_not_change_with_padding_or_neighbours(
    tiny_roberta: Path, pairs: Examples, monkeypatch: pytest.MonkeyPatch, rationale: str, head: str
) -> None:
    model = build(tiny_roberta, rationale, head).eval()
    for gold in (False, True):
        logits, spans = says(model, pairs, gold=gold)
        assert logits.shape == (len(pairs), 3, 3)
        assert (spans is not None) == (rationale in WITH_SPAN_HEAD)
        assert (logits[1:-1] - logits[:1]).abs().amax((1, 2)).min() > 100 * DRIFT  # pairs do differ
        alone = [says(model, pairs.take([at]), gold=gold) for at in range(len(pairs))]
        padded, padded_spans = says(model, pairs, gold=gold, pad_to=90)
        backward, _ = says(model, pairs.take(range(len(pairs))[::-1]), gold=gold)
        with monkeypatch.context() as patch:
            patch.setattr(model.trunk.encoder, "unpadded", False)  # one padded call, as on an accelerator
            stacked, stacked_spans = says(model, pairs, gold=gold)
        for other in (torch.cat([one for one, _ in alone]), padded, backward.flip(0), stacked):
            assert (other - logits).abs().max() <= DRIFT
        if spans is not None and padded_spans is not None and stacked_spans is not None:
            for row, pair in enumerate(pairs.texts):
                real = slice(0, len(pair.response))
                own = alone[row][1]
                assert own is not None
                for other in (own[0], padded_spans[row], stacked_spans[row]):
                    assert (other[:, real] - spans[row][:, real]).abs().max() <= DRIFT


def test_the_order_of_the_words_and_which_post_they_stand_in_do_change_the_logits(tiny_roberta: Path, pairs: Examples) -> None:
    model = build(tiny_roberta).eval()
    pair = pairs.texts[6]
    swapped = TokenPair(pair.response, pair.seeker)
    turned = TokenPair(pair.seeker, [0, *pair.response[-2:0:-1], 2])
    logits, _ = says(model, Examples((pair, swapped, turned), pairs.take([-1] * 3).labels), gold=False)
    assert (logits[1:] - logits[0]).abs().amax((1, 2)).min() > 100 * DRIFT


@pytest.mark.parametrize("tokens", [1, 50, 10**9])
def test_the_encoder_sees_each_post_as_a_plain_call_would_show_it(
    tiny_roberta: Path, pairs: Examples, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    """RoBERTa counts its positions from the padding id on, also where posts are laid end to end, whatever a call holds."""
    from transformers import RobertaModel

    monkeypatch.setattr(unpadded_module, "CALL", tokens)
    plain = RobertaModel.from_pretrained(tiny_roberta, add_pooling_layer=False).eval()
    texts = collate_texts(pairs.texts, PAD)
    with torch.inference_mode():
        seeker, response = build(tiny_roberta).eval().trunk.encoder(texts)  # type: ignore[operator]
        for row, pair in enumerate(pairs.texts):
            for states, ids in ((seeker, pair.seeker), (response, pair.response)):
                expected = plain(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64)).last_hidden_state[0]
                assert (states[row, : len(ids)] - expected).abs().max() <= DRIFT


def test_an_encoder_of_130_positions_reads_128_tokens_as_roberta_counts_them(tiny_roberta: Path) -> None:
    model = build(tiny_roberta).eval()
    assert longest_input(model.trunk.encoder.model) == 128  # type: ignore[union-attr,arg-type]
    full = TokenPair([0, *[5] * 126, 2], [0, *[6] * 126, 2])
    nine = Examples((full,) * 9, (Labels((0, 0, 0), ((), (), ()), (True, True, True)),) * 9)
    logits, _ = says(model, nine, gold=False)
    assert (logits - says(model, nine.take([0]), gold=False)[0]).abs().max() <= DRIFT


@pytest.mark.parametrize("rationale", RATIONALES)
def test_the_gradient_reaches_every_weight_of_the_encoder_the_same_way_with_and_without_padding(
    tiny_roberta: Path, pairs: Examples, monkeypatch: pytest.MonkeyPatch, rationale: str
) -> None:
    gradients = []
    texts = collate_texts(pairs.texts, PAD)
    targets = collate_targets(pairs.labels, texts.response.shape[1])
    for unpadded in (True, False):
        model = build(tiny_roberta, rationale).eval()  # no dropout, so that the two can be compared
        encoder = model.trunk.encoder
        assert isinstance(encoder, PostEncoder)
        assert encoder.unpadded
        monkeypatch.setattr(encoder, "unpadded", unpadded)
        for parameter in model.trunk.gru.parameters():  # a random GRU would let next to nothing through
            nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(0))
        output = model(texts, targets.gold)
        sum(logits[:, 0].sum() for logits in output.logits.values()).backward()
        gradients.append({name: parameter.grad for name, parameter in encoder.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        other = gradients[1][name]
        assert gradient.isfinite().all()
        if not name.endswith("key.bias"):  # adds the same to every score: its gradient is 0 but for rounding
            assert gradient.abs().max() > 1e-5, name
        assert (gradient - other).abs().max() <= DRIFT * max(1.0, float(gradient.abs().max())), name


def test_no_label_fits_into_the_models_forward() -> None:
    assert list(inspect.signature(Model.forward).parameters) == ["self", "texts", "gold"]
    assert list(inspect.signature(GRUTrunk.forward).parameters) == ["self", "texts", "gold"]
    assert inspect.signature(Model.forward).parameters["texts"].annotation in (Texts, "Texts")


def test_gold_spans_inject_the_states_of_their_tokens_marked_by_mechanism_and_never_padding() -> None:
    injector = GoldRationale(mechanisms=2, width=3)
    response = torch.randn(1, 4, 3)
    mask = torch.tensor([[True, True, True, False]])
    gold = torch.tensor([[[False, True, False, True], [False, True, True, False]]])
    injection = injector(response, mask, gold)
    assert injection.mask.tolist() == [[False, True, True, False]]
    torch.testing.assert_close(injection.states[0, 1], response[0, 1] + injector.mechanism.sum(0))
    torch.testing.assert_close(injection.states[0, 2], response[0, 2] + injector.mechanism[1])


@pytest.mark.parametrize("rationale", RATIONALES)
def test_an_injector_works_without_gold(tiny_roberta: Path, rationale: str) -> None:
    injector = build(tiny_roberta, rationale).trunk.injector
    response, mask = torch.randn(2, 5, 32), torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    injection = injector(response, mask, None)
    injects = rationale == "predicted"
    assert injection.states.shape == (2, 5 if injects else 0, 32)
    assert torch.equal(injection.mask, mask if injects else mask[:, :0])
    assert injection.span_logits is None or injection.span_logits.shape == (2, 3, 5)
