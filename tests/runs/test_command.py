"""`empathy-kit run`: what it prints, what it says loudly, and how it ends where it cannot run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from run_world import Said, assert_tells_nothing, flags, read_json, read_predictions, warnings, words

from empathy_kit.cli.run import _folder
from empathy_kit.config import PRESETS, RunConfig
from empathy_kit.core.encoder import load_encoder
from empathy_kit.data.schema import EPITOME
from empathy_kit.encoders import MINILM_SHA256, encoder_source
from empathy_kit.errors import KitError
from empathy_kit.runs import record


def test_a_run_is_named_after_what_it_is_made_of() -> None:
    assert _folder(RunConfig(loss="focal", seed=3)) == Path("runs/sample-focal-none-3")
    for kind, name in (("head", "attention"), ("trunk", "mean"), ("sampler", "over")):
        assert _folder(replace(RunConfig(data="x/posts.csv"), **{kind: name})) == Path(f"runs/posts-ce-none-{name}-0")
    every = RunConfig(rationale="tag", head="attention", trunk="mean", sampler="over")
    assert _folder(every) == Path("runs/sample-ce-tag-attention-mean-over-0")


def test_the_command_says_what_it_uses_and_loudly_what_was_never_predicted(
    tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said], post_words: set[str]
) -> None:
    # Eight large steps over a random encoder teach the commonest level and no more.
    said = command(
        *(
            "run",
            *flags(tiny_roberta),
            "--lr",
            0.02,
            "--epochs",
            2,
            "--loss",
            "focal",
            "--no-rationale",
            "--out",
            tmp_path / "run",
        )
    )
    assert said.code == 0
    lines = [" ".join(line.split()) for line in said.out.splitlines()]
    for name in EPITOME.names:
        rows = read_predictions(tmp_path / "run")
        given = {row[f"{name}_predicted"] for row in rows}
        for level in "012":
            count = sum(row[f"{name}_true"] == level for row in rows)
            line = f"{name} {level} was never predicted ({count} test pairs have it)"
            assert (line in lines) == (level not in given)
    assert "ER 2 was never predicted (3 test pairs have it)" in said.out
    assert said.err.splitlines()[0].startswith("data sample: 300 pairs, ")
    assert f"encoder {tiny_roberta}, preset small, loss focal, rationale none, head linear, trunk gru, seed 0, on cpu" in said.err
    assert "split grouped, seed 0: " in said.err
    assert re.search(r"truncation to 16 tokens \(head-tail\): cuts \d+ seeker posts and \d+ responses of 300", said.err)
    assert "ORACLE" not in said.out + said.err
    assert lines[-1].startswith(f"record: {tmp_path}")
    assert not words(said.out + said.err) & post_words
    assert_tells_nothing(tmp_path / "run", post_words)


@pytest.mark.parametrize("rationale", ["gold", "train-only", "predicted", "tag"])
def test_gold_at_test_time_is_an_oracle_everywhere_and_only_span_heads_are_scored_on_spans(
    tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said], post_words: set[str], rationale: str
) -> None:
    said = command("run", *flags(tiny_roberta), "--rationale", rationale, "--out", tmp_path / "run")
    assert said.code == 0
    content = read_json(tmp_path / "run")
    oracle = rationale == "gold"
    assert content["oracle"] is oracle
    assert record.read(tmp_path / "run").title == f"ce + {rationale}{' (ORACLE)' if oracle else ''}"
    assert ("ORACLE: this run sees annotated spans at test time" in said.err) == oracle
    assert ("ORACLE: annotated spans were seen at test time" in said.out) == oracle
    assert (f"ce + {rationale} (ORACLE) on sample" in said.out) == oracle
    assert ("ORACLE" in said.out + said.err) == oracle
    assert (content["spans"] is not None) == ("Rationale extraction" in said.out) == (rationale in ("predicted", "tag"))
    if content["spans"] is not None:
        assert content["spans"].keys() == set(EPITOME.names)
        assert all(0 <= scores["token_f1"]["value"] <= 1 and scores["pairs"] > 0 for scores in content["spans"].values())
    assert not words(said.out + said.err) & post_words
    assert_tells_nothing(tmp_path / "run", post_words)


def test_the_papers_preset_runs_its_own_path(tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]) -> None:
    said = command(
        *("run", "--preset", "paper", "--encoder", tiny_roberta, "--loss", "focal", "--epochs", 1, "--threads", 1),
        *("--out", tmp_path / "run"),
    )
    assert said.code == 0
    assert "preset paper, loss focal" in said.err
    content = read_json(tmp_path / "run")
    expected = {**PRESETS["paper"], "encoder": str(tiny_roberta), "epochs": 1}
    options = expected.pop("options")
    assert options == {"trunk.hidden": 256, "trunk.layers": 2, "trunk.dropout": 0.3}
    assert options.items() <= content["config"]["options"].items()
    assert {name: content["config"][name] for name in expected} == expected
    assert (expected["max_tokens"], expected["truncate"], expected["select"]) == (64, "head", "loss")
    assert (expected["encoder_lr"], expected["lr"], expected["batch_size"]) == (1e-5, 1e-5, 32)
    assert content["config"]["options"]["loss.ER.gamma"] == 2.0
    assert content["split"]["kind"] == "paper"
    assert content["truncation"]["max_tokens"] == 64
    model = json.loads((tmp_path / "run" / "model" / "config.json").read_text(encoding="utf-8"))
    assert model["attention_probs_dropout_prob"] == 0.1  # the encoder's own, not the small recipe's 0


def test_the_best_preset_takes_another_encoder_and_depth(
    tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]
) -> None:
    said = command(
        *("run", "--preset", "best", "--encoder", tiny_roberta, "--freeze-layers", 1, "--epochs", 1, "--threads", 1),
        *("--out", tmp_path / "run"),
    )
    assert said.code == 0
    expected = {**PRESETS["best"], "encoder": str(tiny_roberta), "freeze_layers": 1}
    assert f"preset best, loss {expected['loss']}, rationale tag, head attention, trunk mean" in said.err
    content = read_json(tmp_path / "run")
    recorded = content["config"]["options"]
    for route, value in expected.pop("options", {}).items():
        kind, _, option = route.rpartition(".")
        assert {recorded[f"{kind}.{task}.{option}"] for task in EPITOME.names} == {value}
    assert {name: content["config"][name] for name in expected} == expected
    assert content["spans"] is not None  # it finds the evidence too


def test_the_papers_preset_without_a_network_ends_in_one_line_that_says_what_to_do(
    tmp_path: Path, command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = command("run", "--preset", "paper", "--out", tmp_path / "run")
    assert said.code == 2
    assert said.out == ""
    assert said.err.strip() == (
        "Error: --encoder roberta-base: not on this machine, and the Hugging Face hub does not answer; download it where there "
        "is a network and give its folder as --encoder FOLDER, or use --encoder minilm"
    )
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_run_with_its_encoder_ends_in_one_line_and_leaves_nothing(
    tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]
) -> None:
    said = command("run", *flags(tiny_roberta), "--max-tokens", 129, "--out", tmp_path / "run")
    assert said == Said(2, "", f"Error: --max-tokens 129: {tiny_roberta} reads at most 128 tokens per post\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.minilm
@pytest.mark.usefixtures("minilm")
def test_the_small_encoder_is_the_real_one_and_its_bytes_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    from empathy_kit import encoders
    from empathy_kit.core.encoder import longest_input

    source = encoder_source("minilm")
    weights = Path(source.location) / "model.safetensors"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == MINILM_SHA256
    assert source.local
    encoder, tokenizer = load_encoder(source.location, local=source.local, attention_dropout=0.0)
    assert (encoder.config.num_hidden_layers, encoder.config.hidden_size, longest_input(encoder)) == (6, 384, 512)
    assert tokenizer.is_fast
    assert encoder.config.attention_probs_dropout_prob == 0.0
    monkeypatch.setattr(encoders, "MINILM_SHA256", "0" * 64)
    with pytest.raises(KitError) as error:
        encoder_source("minilm")
    assert str(error.value) == f"--encoder minilm: {weights}: sha256 {MINILM_SHA256[:12]}... found, expected 000000000000..."


def test_a_run_warns_of_placeholders_in_place_of_posts_that_it_reads(
    tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]
) -> None:
    rows = [
        {"seeker_post": f"case {at}", "response_post": f"so hard {at}", "ER": at % 3, "EX": at % 3, "IP": at % 3}
        for at in range(60)
    ]
    rows[2]["response_post"], rows[4]["seeker_post"] = "[removed]", "NA"
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for posts, found in (("both", "2 rows have"), ("response", "1 row has")):
        said = command("run", *flags(tiny_roberta), "--data", data, "--posts", posts, "--out", tmp_path / posts)
        assert said.code == 0
        assert [f"{found} a placeholder" in line for line in warnings(said)].count(True) == 1
