"""Texts to token ids, and spans to token positions: nothing is lost unseen."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tokenizers.processors import ByteLevel

from empathy_kit.core import tokens as module
from empathy_kit.core.batch import Examples
from empathy_kit.core.tokens import Tokenization, Truncate, whole_stretches
from empathy_kit.data.pairs import Pair, unescape
from empathy_kit.data.spans import Placer

BOS, PAD, EOS = 0, 1, 2


@pytest.fixture(scope="module")
def tokenizer(tiny_roberta: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_roberta)


def make_pair(response: str, *quotes: str, seeker: str = "I am tired.") -> Pair:
    """A pair with ER 1 and the quotes as its evidence, read as a table's row is."""
    response = unescape(response)
    levels = (1, 0, 0)
    spans, unplaced = Placer(("ER", "EX", "IP")).place_all(1, response, levels, [quotes, (), ()])
    assert unplaced == (0, 0, 0)
    return Pair(1, "1", "s1", seeker, response, levels, spans, unplaced)


class One(NamedTuple):
    """A pair's ids, and what of its labels is known of them."""

    seeker: list[int]
    response: list[int]
    gold: tuple[tuple[int, ...], ...]
    gold_known: tuple[bool, ...]


def ones(examples: Examples) -> list[One]:
    pairs = zip(examples.texts, examples.labels, strict=True)
    return [One(texts.seeker, texts.response, labels.gold, labels.gold_known) for texts, labels in pairs]


def encode_one(tokenizer: Any, pair: Pair, max_tokens: int = 128, truncate: Truncate = "head") -> One:
    (one,) = ones(Tokenization(tokenizer, max_tokens, truncate).encode_labelled([pair])[0])
    return one


@pytest.mark.parametrize(
    ("response", "quotes", "marked"),
    [
        ("I hear you. That is so hard, honestly.", ["That is so hard,"], "That is so hard,"),
        ("You are not alone", ["You are not alone"], "You are not alone"),
        ("so sorry, so sorry!", ["so sorry", "so sorry"], "so sorry so sorry"),  # given twice: found twice
        ("hugs &lt;3 &amp; love", ["&lt;3 &amp; love"], "<3 & love"),  # entities, as forums export them
        ("hugs <3 & love", ["hugs &lt;3"], "hugs <3"),
        ("why? (really?) [why.*]+ then", ["(really?) [why.*]+"], "(really?) [why.*]+"),  # characters of regular expressions
        ("it  hurts\n\n  a lot\tI know", ["it hurts a lot"], "it  hurts\n\n  a lot"),  # runs of white space
        ("a hug \U0001f917\U0001f3fd for you", ["\U0001f917\U0001f3fd"], "\U0001f917\U0001f3fd"),  # several tokens a character
        ("a hug\U0001f917 for you", ["for you"], "for you"),
        ("caf\u00e9 \u2014 \u4f60\u597d \u2014 take care", ["\u4f60\u597d \u2014 take"], "\u4f60\u597d \u2014 take"),
        ("That is hard.", [], ""),
    ],
)
def test_a_span_becomes_the_tokens_of_its_characters(tokenizer: Any, response: str, quotes: list[str], marked: str) -> None:
    tokens = encode_one(tokenizer, make_pair(response, *quotes))
    found = tokenizer.decode([tokens.response[place] for place in tokens.gold[0]], clean_up_tokenization_spaces=False)
    assert " ".join(found.split()) == " ".join(marked.split())
    assert tokens.gold[1:] == ((), ())
    assert tokenizer.decode(tokens.response[1:-1], clean_up_tokenization_spaces=False) == unescape(response)


def test_a_span_that_starts_inside_a_token_marks_the_whole_token(tokenizer: Any) -> None:
    whole = encode_one(tokenizer, make_pair("and then there is you", "there"))
    part = encode_one(tokenizer, make_pair("and then there is you", "here"))  # inside the token "there"
    assert len(whole.gold[0]) == 1
    assert part.gold[0] == whole.gold[0]


@pytest.mark.parametrize("text", ["a </s> b <pad> c <s> d", "<pad>", "<mask><unk>"])
def test_text_that_reads_like_a_special_token_is_text(tokenizer: Any, text: str) -> None:
    tokens = encode_one(tokenizer, make_pair(text, text, seeker=text))
    for post in (tokens.seeker, tokens.response):
        assert post[0] == BOS
        assert post[-1] == EOS
        assert not set(post[1:-1]) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(tokens.response[1:-1], clean_up_tokenization_spaces=False) == text


@pytest.mark.parametrize("max_tokens", [8, 9, 20])
@pytest.mark.parametrize("truncate", ["head", "head-tail"])
def test_truncation_keeps_the_head_or_head_and_tail_and_always_the_special_tokens(
    tokenizer: Any, max_tokens: int, truncate: Truncate
) -> None:
    post = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    whole = encode_one(tokenizer, make_pair(post, seeker=post)).response[1:-1]
    room = max_tokens - 2
    assert len(whole) > room
    head = room if truncate == "head" else (room + 1) // 2
    expected = [BOS, *whole[:head], *(whole[-(room - head) :] if room > head else []), EOS]
    tokens = encode_one(tokenizer, make_pair(post, seeker=post), max_tokens, truncate)
    assert tokens.seeker == tokens.response == expected
    assert len(expected) == max_tokens


def test_a_post_that_just_fits_is_not_cut(tokenizer: Any) -> None:
    pair = make_pair("I hear you, and I am sorry.", "I am sorry.", seeker="I am so tired")
    whole = encode_one(tokenizer, pair)
    examples, truncation = Tokenization(tokenizer, len(whole.response), "head").encode_labelled([pair])
    assert ones(examples) == [whole]
    assert (truncation.seekers, truncation.responses, truncation.evidence_lost) == (0, 0, (0, 0, 0))


def test_evidence_that_is_cut_away_whole_is_counted_and_what_is_left_of_it_is_marked(tokenizer: Any) -> None:
    filler = " ".join(["and"] * 40)
    pairs = [
        make_pair(f"sorry {filler}", "sorry"),
        make_pair(f"{filler} {filler} sorry", "sorry"),
        make_pair(f"{filler} sorry {filler}", "sorry"),
        make_pair(f"sorry {filler} sorry", "sorry", "sorry"),  # two spans, the second goes
        make_pair("sorry", "sorry", seeker=filler),
    ]
    examples, head = Tokenization(tokenizer, 20, "head").encode_labelled(pairs)
    kept = ones(examples)
    assert (head.max_tokens, head.seekers, head.responses) == (20, 1, 4)
    assert (head.evidence, head.evidence_lost) == ((5, 0, 0), (2, 0, 0))
    assert [bool(tokens.gold[0]) for tokens in kept] == [True, False, False, True, True]
    examples, both = Tokenization(tokenizer, 20, "head-tail").encode_labelled(pairs)
    kept = ones(examples)
    assert (both.evidence, both.evidence_lost) == ((5, 0, 0), (1, 0, 0))
    for tokens, spans in zip(kept, (1, 1, 0, 2, 1), strict=True):
        assert len(tokens.gold[0]) == spans * len(kept[4].gold[0])


def test_evidence_is_known_in_the_whole_response_and_shown_stretches_are_moved_there(tokenizer: Any) -> None:
    post = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    pair = make_pair(post, "two three", "seven eight nine", "fourteen")
    whole, _ = Tokenization(tokenizer, 128, "head").encode_labelled([pair])
    stretches = whole.labels[0].evidence[0]
    assert [tokenizer.decode(whole.texts[0].response[start:end]).strip() for start, end in stretches] == [
        "two three",
        "seven eight nine",
        "fourteen",
    ]
    assert whole.labels[0].cut[1] == 0
    for truncate in ("head", "head-tail"):
        examples, _ = Tokenization(tokenizer, 16, truncate).encode_labelled([pair])
        shown, labels = examples.texts[0].response, examples.labels[0]
        assert labels.evidence == (stretches, (), ())
        for at, token in enumerate(shown[:-1]):
            ((start, end),) = whole_stretches([(at, at + 1)], labels.cut)
            assert (end - start, whole.texts[0].response[start]) == (1, token)
        # Marked on both sides of the cut: two stretches, and nothing in between.
        place, missing = labels.cut
        assert whole_stretches([(place - 2, place + 1)], labels.cut) == [
            (place - 2, place),
            (place + missing, place + missing + 1),
        ]
    assert whole_stretches([(0, 2), (3, 5)], (5, 0)) == [(0, 2), (3, 5)]


def test_a_huge_post_and_one_of_white_space_are_only_posts(tokenizer: Any) -> None:
    examples, truncation = Tokenization(tokenizer, 16, "head-tail").encode_labelled([make_pair("so sad " * 9_000, seeker=" \n ")])
    (tokens,) = ones(examples)
    assert (len(tokens.response), truncation.responses) == (16, 1)
    assert (tokens.seeker[0], tokens.seeker[-1]) == (BOS, EOS)


def test_a_tokenizer_that_adds_nothing_gives_every_post_a_token_nevertheless(tokenizer: Any) -> None:
    """As GPT-2's: an empty post would be a row of no length, which no trunk can read."""
    bare = copy.deepcopy(tokenizer)
    bare.backend_tokenizer.post_processor = ByteLevel(trim_offsets=False)
    tokens = Tokenization(bare, 16, "head")
    assert tokens.empty == [BOS]
    (read,) = tokens.read([make_pair("", seeker="")])
    assert (read.tokens.seeker, read.tokens.response, read.places) == ([BOS], [BOS], [(0, 0)])
    (read,) = tokens.read([make_pair("so sad", seeker="so sad")])
    assert read.tokens.seeker == read.tokens.response == tokenizer("so sad")["input_ids"][1:-1]
    bare.bos_token = bare.eos_token = bare.pad_token = None
    assert Tokenization(bare, 16, "head").empty == [0]


def test_no_pairs_are_no_tokens(tokenizer: Any) -> None:
    examples, truncation = Tokenization(tokenizer, 16, "head").encode_labelled([])
    assert len(examples) == 0
    assert list(Tokenization(tokenizer, 16, "head").encode([])) == []
    assert (truncation.seekers, truncation.responses, truncation.evidence) == (0, 0, ())


def test_a_limit_that_holds_no_text_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"^3 tokens leave no room for text$"):
        Tokenization(tokenizer, 3, "head")


def test_evidence_is_known_only_where_every_span_was_found(tokenizer: Any) -> None:
    pair = Pair(1, "1", "s1", "a", "sorry to hear", (1, 2, 0), ((), (), ()), (1, 0, 0))  # ER: a lost span, EX: none given
    assert encode_one(tokenizer, pair).gold_known == (False, False, True)


def test_posts_alone_become_the_same_ids_as_with_their_labels_and_few_are_read_ahead(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 4)
    tokenization = Tokenization(tokenizer, 12, "head-tail")
    pairs = [make_pair(f"so {'very ' * number}sorry", "sorry") for number in range(11)]
    read = 0

    def watched() -> Any:
        nonlocal read
        for pair in pairs:
            read += 1
            yield pair

    stream = tokenization.encode(watched())
    assert next(stream) == tokenization.encode_labelled(pairs)[0].texts[0]
    assert read == 4
    assert tuple(stream) == tokenization.encode_labelled(pairs)[0].texts[1:]


def test_without_seekers_their_posts_are_empty_with_labels_and_without_and_still_counted_as_cut(tokenizer: Any) -> None:
    pairs = [make_pair("that is hard, sorry", "sorry", seeker="I am tired of all of this and everyone, every day")] * 2
    bare, whole = Tokenization(tokenizer, 8, "head", seekers=False), Tokenization(tokenizer, 8, "head")
    examples, truncation = bare.encode_labelled(pairs)
    assert [pair.seeker for pair in examples.texts] == [[BOS, EOS]] * 2
    assert tuple(bare.encode(pairs)) == examples.texts
    assert [pair.response for pair in examples.texts] == [pair.response for pair in whole.encode(pairs)]
    assert truncation == whole.encode_labelled(pairs)[1]


def test_some_tasks_labels_alone_can_be_asked_for(tokenizer: Any) -> None:
    pair = make_pair("that is hard, sorry", "sorry")
    both, truncation = Tokenization(tokenizer, 32, "head").encode_labelled([pair], [2, 0])
    (labels,) = both.labels
    assert labels.levels == (0, 1)
    assert [bool(gold) for gold in labels.gold] == [False, True]
    assert truncation.evidence == (0, 1)


def test_a_missing_label_is_minus_one_and_its_evidence_is_not_known(tokenizer: Any) -> None:
    pair = Pair(1, "1", "s1", "a", "sorry to hear", (-1, 0, 2), ((), (), ()), (0, 0, 0))
    examples, _ = Tokenization(tokenizer, 32, "head").encode_labelled([pair])
    assert examples.levels().tolist() == [[-1, 0, 2]]
    assert examples.labels[0].gold_known == (False, True, False)
