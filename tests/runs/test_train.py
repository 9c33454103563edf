"""One run from data to record: what it leaves behind, that it repeats, what it says loudly, and what it never tells."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import sys
import traceback
from collections.abc import Callable
from dataclasses import fields, replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from empathy_kit.core.engine import Epoch, Step
from empathy_kit.recipes import compare_providers
from empathy_kit.record import Record
from torch import Tensor

import empathy_kit
from empathy_kit import Loss, Task, __version__, cli, recipes, record
from empathy_kit.config import PRESETS, RunConfig, configure
from empathy_kit.core.batch import TokenPair
from empathy_kit.core.encoder import load_encoder
from empathy_kit.core.frozen import FrozenStates, freeze
from empathy_kit.core.unpadded import make_unpadded
from empathy_kit.data.pairs import MECHANISMS
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split
from empathy_kit.encoders import MINILM_SHA256, encoder_source
from empathy_kit.errors import KitError
from empathy_kit.plugins import Failure, Provided, Registry, load_registry

SMALL = {"epochs": 1, "threads": 1, "max_tokens": 16, "hidden": 16, "layers": 1, "batch_size": 64}
FILES = {"run.json", "manifest.json", "history.jsonl", "predictions.csv"}


class Said(NamedTuple):
    """How a command ended, and all that it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """The command line, in this process: importing torch anew for each would cost more than the runs."""
    for name in ("TRANSFORMERS_VERBOSITY", "HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE", "TOKENIZERS_PARALLELISM"):
        monkeypatch.setenv(name, os.environ.get(name, "1"))  # what the command sets is unset after the test
    monkeypatch.setenv("COLUMNS", "250")

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["empathy-kit", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        code = end.value.code
        assert isinstance(code, int)
        return Said(code, *capfd.readouterr())

    return call


def configuration(encoder: Path, **changes: Any) -> RunConfig:
    return configure(RunConfig(), {**SMALL, "encoder": str(encoder), **changes})


def flags(encoder: Path) -> list[object]:
    return ["--encoder", encoder, *(part for name, value in SMALL.items() for part in (f"--{name.replace('_', '-')}", value))]


@pytest.fixture(scope="module")
def first(tiny_roberta: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A run with options, of two epochs, and its events."""
    folder = tmp_path_factory.mktemp("first") / "run"
    options = {"loss.gamma": 1.5, "loss.ER.gamma": 3}
    config = configuration(tiny_roberta, loss="focal", epochs=2, seed=7, options=options)
    return folder, list(recipes.run(config, load_registry(), folder))


def read_json(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return content


def read_predictions(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def words(text: str) -> set[str]:
    return set(re.findall(r"\b[a-z]{5,}\b", text.lower()))


@pytest.fixture(scope="module")
def post_words(tiny_roberta: Path) -> set[str]:
    """Words of the sample's posts that the kit's own source and the encoder's configuration do not use."""
    posts = words(" ".join(text for pair in load_corpus("sample").pairs for text in (pair.seeker, pair.response)))
    own = [*Path(empathy_kit.__file__).parent.rglob("*.py"), tiny_roberta / "config.json"]
    found = posts - set().union(*(words(path.read_text(encoding="utf-8")) for path in own))
    assert len(found) > 1000
    return found


def assert_tells_nothing(folder: Path, post_words: set[str]) -> None:
    """No file of a run but its tokenizer and weights holds a word of a post."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    told = [path for path in files if path.parent != folder / "model" or path.name == "config.json"]
    assert {path.name for path in told} == {*FILES, "config.json"}
    for path in told:
        assert not words(path.read_text(encoding="utf-8")) & post_words, path.name


def test_the_events_are_opened_then_steps_and_epochs_then_finished(first: tuple[Path, list[Any]]) -> None:
    folder, (opened, *between, finished) = first
    assert isinstance(opened, recipes.Opened)
    assert all(isinstance(event, Step | Epoch) for event in between)
    assert [event.epoch for event in between if isinstance(event, Epoch)] == [1, 2]
    assert finished.folder == folder
    assert finished.record.scores == read_json(folder)["scores"]
    assert (opened.oracle, opened.device) == (False, "cpu")


def test_a_run_directory_holds_what_the_design_says_and_nothing_beside_it(first: tuple[Path, list[Any]]) -> None:
    folder, events = first
    assert {path.name for path in folder.iterdir()} == {*FILES, "model"}
    assert [path.name for path in folder.parent.iterdir()] == ["run"]  # no staging folder is left
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["sha256"]
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert manifest.keys() == files.keys() - {"manifest.json"}
    for name, expected in manifest.items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == expected
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    epochs = [event for event in events if isinstance(event, Epoch)]
    assert [line["validation_loss"] for line in history] == [epoch.validation_loss for epoch in epochs]


def test_run_json_writes_out_defaults_options_providers_versions_and_hashes(first: tuple[Path, list[Any]]) -> None:
    folder, events = first
    content = read_json(folder)
    assert content.keys() == {entry.name for entry in fields(Record)}
    assert content["config"].keys() == {entry.name for entry in fields(RunConfig)}
    assert (content["config"]["dropout"], content["config"]["patience"]) == (0.3, 2)
    options = {"loss.ER.gamma": 3.0, "loss.EX.gamma": 1.5, "loss.IP.gamma": 1.5, "rationale.weight": 1.0}
    options |= dict.fromkeys(("loss.ER.power", "loss.EX.power", "loss.IP.power"), 0.0)
    assert content["config"]["options"] == options
    ours = {"distribution": "empathy-kit", "version": empathy_kit.__version__}
    assert content["plugins"] == {
        "loss": {"name": "focal", **ours},
        "rationale": {"name": "none", **ours},
        "head": {"name": "linear", **ours},
    }
    assert content["kit"] == empathy_kit.__version__
    assert content["versions"]["torch"] == metadata.version("torch")
    assert content["versions"].keys() >= {"python", "transformers", "tokenizers", "accelerate", "numpy"}
    opened = events[0]
    assert content["data"]["sha256"] == load_corpus("sample").sha256()
    split = make_split(load_corpus("sample"), "grouped", 0)
    assert (content["data"], content["split"]) == (json.loads(json.dumps(opened.data)), json.loads(json.dumps(opened.split)))
    assert content["split"]["sha256"] == split.sha256()
    assert list(content["data"]["sources"]) == ["pairs.jsonl"]
    assert content["split"]["pairs"]["test"] == content["scores"]["ER"]["n"] == len(split.test)
    assert content["machine"]["threads"] == 1
    assert content["machine"]["losses"].startswith(("fused CPU kernel, ", "closed form in torch, no fused kernel: "))
    assert (content["oracle"], content["spans"]) == (False, None)
    best = [event for event in events if isinstance(event, Epoch) and event.best][-1]
    assert content["training"]["best_epoch"] == best.epoch
    assert content["training"]["validation_loss"] == best.validation_loss


def test_predictions_agree_with_the_scores_and_bear_no_text_and_no_id(
    first: tuple[Path, list[Any]], post_words: set[str]
) -> None:
    folder = first[0]
    rows = read_predictions(folder)
    corpus = load_corpus("sample")
    test = make_split(corpus, "grouped", 0).test
    assert len(rows) == len(test) == len({row["id"] for row in rows})
    assert rows[0].keys() == {
        "id",
        *(f"{name}_{what}" for name in MECHANISMS for what in ("true", "predicted", "swapped", "p0", "p1", "p2")),
    }
    for index, name in enumerate(MECHANISMS):
        confusion = [[0] * 3 for _ in range(3)]
        for row, position in zip(rows, test, strict=True):
            shares = [float(row[f"{name}_p{level}"]) for level in range(3)]
            assert sum(shares) == pytest.approx(1, abs=2e-6)
            assert shares[int(row[f"{name}_predicted"])] == max(shares)
            assert int(row[f"{name}_true"]) == corpus.pairs[position].levels[index]
            confusion[int(row[f"{name}_true"])][int(row[f"{name}_predicted"])] += 1
        assert confusion == read_json(folder)["scores"][name]["confusion"]
    for row, position in zip(rows, test, strict=True):
        pair = corpus.pairs[position]
        assert re.fullmatch("[0-9a-f]{16}", row["id"])
        for raw in (pair.pair_id, pair.seeker_id, str(pair.row)):
            assert row["id"] not in {hashlib.new(kind, raw.encode()).hexdigest()[:16] for kind in ("md5", "sha1", "sha256")}
    assert_tells_nothing(folder, post_words)


def test_every_response_also_meets_a_strangers_seeker_post(first: tuple[Path, list[Any]]) -> None:
    pairs = [TokenPair([1, at // 2, 2], [at], (0, 0, 0), ((), (), ()), (True,) * 3) for at in range(20)]  # twins of seekers
    swapped = recipes.swap_seekers(pairs, seed=3)
    assert all(one.seeker != other.seeker for one, other in zip(pairs, swapped, strict=True))
    assert [replace(pair, seeker=[]) for pair in swapped] == [replace(pair, seeker=[]) for pair in pairs]
    assert recipes.swap_seekers(pairs, seed=3) == swapped != recipes.swap_seekers(pairs, seed=4)
    alike = [replace(pair, seeker=[1, 2]) for pair in pairs]
    assert recipes.swap_seekers(alike, seed=0) == alike
    rows = read_predictions(first[0])
    assert {row[f"{name}_swapped"] for row in rows for name in MECHANISMS} <= {"0", "1", "2"}


def test_without_the_seeker_posts_they_do_not_matter(tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]) -> None:
    said = command("run", *flags(tiny_roberta), "--posts", "response", "--out", tmp_path / "run")
    assert said.code == 0
    assert "the model is not shown the seeker posts" in said.err
    for row in read_predictions(tmp_path / "run"):
        assert all(row[f"{name}_swapped"] == row[f"{name}_predicted"] for name in MECHANISMS)
    assert record.read(tmp_path / "run").title == "ce + response only"


def test_frozen_layers_stay_as_they_were_and_their_states_are_computed_once(
    tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    before = load_file(tiny_roberta / "model.safetensors")
    monkeypatch.setenv("EMPATHY_KIT_CACHE", str(tmp_path / "cache"))
    said = command("run", *flags(tiny_roberta), "--freeze-layers", "1", "--out", tmp_path / "alone")
    (states,) = (tmp_path / "cache" / "states").iterdir()
    assert f"the 1 lowest layers are frozen; their states of every post lie in {states}" in said.err
    after = load_file(tmp_path / "alone" / "model" / "model.safetensors")
    for name, weight in before.items():
        moved = not torch.equal(after.get(f"trunk.encoder.{name}", weight), weight)
        assert moved == ("layer.1." in name), name

    written = states.stat().st_mtime_ns
    assert command("run", *flags(tiny_roberta), "--freeze-layers", "1", "--out", tmp_path / "again").code == 0
    assert states.stat().st_mtime_ns == written
    for file in ("predictions.csv", "model/model.safetensors"):
        assert (tmp_path / "alone" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_a_file_of_states_that_is_cut_short_is_computed_anew(tiny_roberta: Path, tmp_path: Path) -> None:
    encoder, _ = load_encoder(str(tiny_roberta), local=True)
    make_unpadded(encoder)
    freeze(encoder, 1)
    posts = [(0, 5, 6, 2), (0, 7, 2)]
    whole = FrozenStates(encoder, 1, posts, tmp_path)
    content = whole.path.read_bytes()
    whole.path.write_bytes(content[:-8])
    again = FrozenStates(encoder, 1, [*posts, posts[0]], tmp_path)
    assert again.path == whole.path
    assert again.path.read_bytes() == content
    assert FrozenStates(encoder, 1, posts[:1], tmp_path).path != whole.path
    assert FrozenStates(encoder, 2, posts, tmp_path).path != whole.path


def test_states_that_do_not_fit_the_disk_are_one_line(
    tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    encoder, _ = load_encoder(str(tiny_roberta), local=True)
    make_unpadded(encoder)
    freeze(encoder, 1)
    path = FrozenStates(encoder, 1, [(0, 2)], tmp_path).path
    path.unlink()
    monkeypatch.setattr("secrets.token_hex", lambda _: "full")
    path.with_name(f".{path.name}.partial-full").symlink_to(full)
    with pytest.raises(KitError) as error:
        FrozenStates(encoder, 1, [(0, 2)], tmp_path)
    assert str(error.value) == f"--freeze-layers 1: {path} cannot be written: No space left on device"
    assert list(tmp_path.iterdir()) == []


def test_more_frozen_layers_than_there_are_is_one_line(tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said]) -> None:
    said = command("run", *flags(tiny_roberta), "--freeze-layers", "3", "--out", tmp_path / "run")
    assert (said.code, said.out) == (2, "")
    assert "--freeze-layers 3: the encoder has 2 layers, expected 0 to 2" in said.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_the_command_repeats_a_run_from_its_run_json_to_the_bit(
    first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said], post_words: set[str]
) -> None:
    folder = first[0]
    said = command("run", "--config", folder / "run.json", "--out", tmp_path / "again", "--json")
    assert said.code == 0
    before, after = read_json(folder), read_json(tmp_path / "again")
    assert json.loads(said.out) == after  # and nothing else on stdout
    for part in ("config", "plugins", "versions", "data", "split", "truncation", "scores"):
        assert after[part] == before[part]
    assert (tmp_path / "again" / "predictions.csv").read_bytes() == (folder / "predictions.csv").read_bytes()
    weights = [path / "model" / "model.safetensors" for path in (folder, tmp_path / "again")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert not words(said.out + said.err) & post_words


def test_another_seed_is_another_run(first: tuple[Path, list[Any]], tmp_path: Path) -> None:
    config = configure(RunConfig(), {**read_json(first[0])["config"], "seed": 8})
    list(recipes.run(config, load_registry(), tmp_path / "other"))
    assert (tmp_path / "other" / "predictions.csv").read_bytes() != (first[0] / "predictions.csv").read_bytes()
    assert read_json(tmp_path / "other")["split"] == read_json(first[0])["split"]  # the split has a seed of its own


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
    for name in MECHANISMS:
        rows = read_predictions(tmp_path / "run")
        given = {row[f"{name}_predicted"] for row in rows}
        for level in "012":
            count = sum(row[f"{name}_true"] == level for row in rows)
            line = f"level {level} of {name} was never predicted ({count} test pairs have it)"
            assert (line in lines) == (level not in given)
    assert "level 2 of ER was never predicted (3 test pairs have it)" in said.out
    assert said.err.splitlines()[0].startswith("data sample: 300 pairs, ")
    assert f"encoder {tiny_roberta}, preset small, loss focal, rationale none, head linear, seed 0, on cpu" in said.err
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
        assert content["spans"].keys() == set(MECHANISMS)
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
    assert {name: content["config"][name] for name in expected} == expected
    assert (expected["max_tokens"], expected["truncate"], expected["select"]) == (64, "head", "loss")
    assert (expected["encoder_lr"], expected["lr"], expected["batch_size"], expected["hidden"]) == (1e-5, 1e-5, 32, 256)
    assert content["config"]["options"]["loss.ER.gamma"] == 2.0
    assert content["split"]["kind"] == "paper"
    assert content["truncation"]["max_tokens"] == 64
    model = json.loads((tmp_path / "run" / "model" / "config.json").read_text(encoding="utf-8"))
    assert model["attention_probs_dropout_prob"] == 0.1  # the encoder's own, not the small recipe's 0


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("--loss", "facol"), "--loss facol: unknown; there are ce, focal, weighted"),
        (
            ("--loss", "focal", "-o", "loss.gama", "1"),
            "loss focal: unknown option 'gama'; its options: gamma: float = 2.0, power: float = 0.0",
        ),
        (
            ("-o", "loss.XX.gamma", "1"),
            "-o loss.XX.gamma: unknown, expected loss.OPTION, head.OPTION, rationale.OPTION or loss.ER.OPTION "
            "(also head, and ER, EX, IP)",
        ),
        (("--max-tokens", "129"), "--max-tokens 129: {encoder} reads at most 128 tokens a post"),
        (
            ("--data", "nowhere.csv"),
            "--data nowhere.csv: no such file or folder; expected sample, reddit, a folder or a .csv, .jsonl or .parquet file",
        ),
        (
            ("--encoder", "./nowhere"),
            "--encoder ./nowhere: no such folder; expected minilm, a folder, or a name on the Hugging Face hub",
        ),
    ],
)
def test_what_cannot_run_ends_in_one_line_and_leaves_nothing(
    tiny_roberta: Path, tmp_path: Path, command: Callable[..., Said], changes: tuple[str, ...], message: str
) -> None:
    said = command("run", *flags(tiny_roberta), *changes, "--out", tmp_path / "run")
    assert said.code == 2
    assert said.out == ""
    (line,) = said.err.strip().splitlines()
    assert line == "Error: " + message.format(encoder=tiny_roberta)
    assert list(tmp_path.iterdir()) == []


def with_loss(loss: Callable[[Tensor, Tensor], Tensor]) -> Registry:
    def build(task: Task) -> Callable[[Tensor, Tensor], Tensor]:
        return loss

    return Registry((*load_registry().provided, Provided("loss", Loss("broken", build), "empathy-kit-broken", "1")))


def test_a_run_that_breaks_leaves_no_directory_and_no_post_in_its_traceback(
    tiny_roberta: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def boom(logits: Tensor, target: Tensor) -> Tensor:
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match=r"^boom") as error:
        list(recipes.run(configuration(tiny_roberta, loss="broken"), with_loss(boom), tmp_path / "run"))
    assert error.value.__notes__ == ["loss broken is from empathy-kit-broken 1"]
    # With the local variables of every frame, as debuggers and error trackers add them: a pair's repr hides its posts.
    frames = traceback.TracebackException.from_exception(error.value, capture_locals=True)
    told = "".join(frames.format()) + "".join(capfd.readouterr())
    assert "corpus = Corpus(name='sample'" in told
    for pair in load_corpus("sample").pairs:
        for post in (pair.seeker, pair.response):
            assert post[:25] not in told
            assert post[-25:] not in told
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_not_a_number_ends_the_run_with_a_line(tiny_roberta: Path, tmp_path: Path) -> None:
    registry = with_loss(lambda logits, target: logits.sum(-1) * float("nan"))
    with pytest.raises(KitError) as error:
        list(recipes.run(configuration(tiny_roberta, loss="broken"), registry, tmp_path / "run"))
    assert (
        str(error.value)
        == "the loss became nan in epoch 1, step 1; try a smaller --lr or another loss (loss broken is from empathy-kit-broken 1)"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_run_never_overwrites_another(first: tuple[Path, list[Any]], tiny_roberta: Path) -> None:
    before = (first[0] / "manifest.json").read_bytes()
    with pytest.raises(KitError) as error:
        list(recipes.run(configuration(tiny_roberta), load_registry(), first[0]))
    assert str(error.value) == f"--out {first[0]}: already exists; a run never overwrites another, expected a new name"
    assert (first[0] / "manifest.json").read_bytes() == before


@pytest.mark.minilm
@pytest.mark.usefixtures("minilm")
def test_the_small_encoder_is_the_real_one_and_its_bytes_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    from empathy_kit import encoders
    from empathy_kit.core.encoder import load_encoder, longest_input

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


def changed(folder: Path, to: Path, **changes: str) -> Path:
    """The run's record with another provider of its loss."""
    content = read_json(folder)
    content["plugins"]["loss"].update(changes)
    content["config"]["loss"] = content["plugins"]["loss"]["name"]
    to.write_text(json.dumps(content), encoding="utf-8")
    return to


def test_a_repeat_with_another_version_of_a_plugin_warns(
    first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said]
) -> None:
    path = changed(first[0], tmp_path / "run.json", version="0.0.9")
    said = command("run", "--config", path, "--out", tmp_path / "again", "--epochs", "1")
    assert said.code == 0
    name = read_json(first[0])["plugins"]["loss"]["name"]
    assert (
        f"warning: loss {name}: the recorded run had it from empathy-kit 0.0.9; now it is {__version__}, whose numbers may differ"
        in said.err.splitlines()
    )
    assert read_json(tmp_path / "again")["plugins"]["loss"]["version"] == __version__


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"name": "poly9", "distribution": "empathy-kit-poly9", "version": "0.2.0"},
            "loss poly9: the recorded run had it from empathy-kit-poly9 0.2.0, which is not there; expected it to be installed",
        ),
        (
            {"name": "ce", "distribution": "empathy-kit-poly9", "version": "0.2.0"},
            f"loss ce: the recorded run had it from empathy-kit-poly9 0.2.0, but now empathy-kit {__version__} offers that name; "
            "expected empathy-kit-poly9",
        ),
    ],
)
def test_a_repeat_without_the_plugins_provider_is_refused(
    first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said], changes: dict[str, str], message: str
) -> None:
    path = changed(first[0], tmp_path / "run.json", **changes)
    said = command("run", "--config", path, "--out", tmp_path / "again")
    assert (said.code, said.err) == (2, f"Error: {message}\n")
    assert not (tmp_path / "again").exists()


def test_a_recorded_plugin_that_is_broken_now_is_named_with_its_reason() -> None:
    recorded = {"loss": {"name": "poly9", "distribution": "empathy_kit.Poly9", "version": "0.2.0"}}
    broken = Failure("empathy-kit-poly9", "0.3.0", "ImportError: no module named polynomials")
    registry = Registry(load_registry().provided, (Failure("empathy-kit-other", "1.0", "SystemExit: 1"), broken))
    with pytest.raises(KitError) as error:
        compare_providers(recorded, RunConfig(loss="poly9"), registry)
    assert str(error.value) == (
        "loss poly9: the recorded run had it from empathy_kit.Poly9 0.2.0, which is not there; not loaded: "
        "empathy-kit-poly9 0.3.0: ImportError: no module named polynomials"
    )
    assert compare_providers(recorded, RunConfig(loss="ce"), registry) == ()  # --loss ce replaces it


def test_a_repeat_on_other_data_is_refused(first: tuple[Path, list[Any]], tmp_path: Path, command: Callable[..., Said]) -> None:
    content = read_json(first[0])
    content["data"]["sha256"] = "0" * 64
    path = tmp_path / "run.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    said = command("run", "--config", path, "--out", tmp_path / "again")
    found = read_json(first[0])["data"]["sha256"][:12]
    assert (said.code, said.err) == (
        2,
        f"Error: --config: the data is not that of the recorded run (sha256 {found}... found, expected 000000000000...); "
        "its scores cannot be repeated\n",
    )
    assert not (tmp_path / "again").exists()
