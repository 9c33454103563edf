"""Labels that are probably wrong: judged by models that have not seen their pairs, told without text and ids."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from empathy_kit import KitError, files
from empathy_kit.comparison import out_of_fold
from empathy_kit.comparison.audit import as_csv, audit
from empathy_kit.comparison.out_of_fold import OutOfFold, cross_validate, from_folds, from_runs, of_tasks
from empathy_kit.config import RunConfig, configure, to_dict
from empathy_kit.core.metrics import Floats
from empathy_kit.data.pairs import Corpus, Pair, same_words
from empathy_kit.data.schema import MISSING, Schema, TaskSchema
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import Split
from empathy_kit.plugins import Registry, load_registry
from empathy_kit.runs import record
from empathy_kit.runs.memory import Trained, train
from empathy_kit.runs.reservation import reserved

PACE = TaskSchema("pace", "pace", "pace", ("slow", "fast"))
WARMTH = TaskSchema("warmth", "warmth", "warmth", ("no", "a bit", "yes"))
TWO = Schema((PACE, WARMTH))
SURE = 0.9


def corpus_of(levels: Sequence[tuple[int, int]]) -> Corpus:
    pairs = (
        Pair(row, f"secret-id-{row}", f"secret-seeker-{row}", f"private post {row}", f"private answer {row}", each)
        for row, each in enumerate(levels, start=1)
    )
    return Corpus("hand", tuple(pairs), {}, schema=TWO)


@pytest.fixture
def corpus() -> Corpus:
    """Twelve pairs; one lacks its first label."""
    return corpus_of([(MISSING if row == 3 else row % 2, row % 3) for row in range(12)])


def shares(levels: Sequence[int], classes: int, wrong: Sequence[int] = ()) -> Floats:
    """A sure model's probabilities: of the given levels, and of the next ones for the pairs that it thinks wrong."""
    found = np.full((len(levels), classes), (1 - SURE) / (classes - 1))
    for at, level in enumerate(levels):
        found[at, (max(level, 0) + (at in wrong)) % classes] = SURE
    return found


def of_all(corpus: Corpus, pace: Sequence[int] = (), warmth: Sequence[int] = ()) -> dict[str, Floats]:
    wrong = {"pace": pace, "warmth": warmth}
    return {
        task.name: shares([pair.levels[at] for pair in corpus.pairs], len(task.labels), wrong[task.name])
        for at, task in enumerate(TWO.tasks)
    }


def write_run(folder: Path, corpus: Corpus, positions: Sequence[int], found: dict[str, Floats], **changes: Any) -> Path:
    """A finished run whose test part has these pairs."""
    ids = record.hashed_ids(corpus)
    header = ["id"]
    rows = [[ids[at]] for at in positions]
    for index, task in enumerate(TWO.tasks):
        if task.name not in found:
            continue
        header += [f"{task.name}_true", f"{task.name}_predicted", *(f"{task.name}_p{at}" for at in range(len(task.labels)))]
        for row, at in zip(rows, positions, strict=True):
            level, said = corpus.pairs[at].levels[index], found[task.name][at]
            row += ["" if level == MISSING else str(level), str(said.argmax()), *(f"{value:.6f}" for value in said)]
    values: dict[str, Any] = {
        "format": record.FORMAT,
        "kit": "0.1.0",
        "oracle": False,
        "config": to_dict(RunConfig(schema=TWO, tasks=tuple(found))),
        "plugins": {"loss": {"name": "ce", "distribution": "empathy-kit", "version": "0.1.0"}},
        "data": {"name": corpus.name, "sha256": corpus.sha256()},
        "split": {"kind": "grouped", "sha256": ""},
        "encoder": {"sha256": ""},
        **{name: {} for name in ("versions", "machine", "truncation", "training", "scores")},
        "spans": None,
        **changes,
    }
    with reserved(folder) as place:
        tables = {"predictions": [header, *rows], "validation": [["id"]]}
        return place.leave(lambda staging, model: record.write(staging, record.Record(**values), [{"epoch": 1}], **tables))


def refusal(folder: Path, corpus: Corpus) -> str:
    with pytest.raises(KitError) as error:
        from_runs(folder, corpus, corpus.schema)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_found_names_rows_labels_and_reasons_and_no_text_or_id(corpus: Corpus) -> None:
    found = audit(corpus, OutOfFold("5 folds", of_all(corpus, pace=[5], warmth=[1, 4])))
    assert (found.data, found.pairs, found.covered, found.source) == ("hand", 12, 12, "5 folds")
    assert {name: (task.labelled, task.judged) for name, task in found.tasks.items()} == {"pace": (11, 11), "warmth": (12, 12)}
    (fault,) = found.tasks["pace"].faults
    assert asdict(fault) == {
        "row": 6,
        "task": "pace",
        "rank": 1,
        "label": "fast",
        "suggested": "slow",
        "label_probability": 0.1,
        "suggested_probability": 0.9,
        "margin": -0.8,
        "reason": "slow has probability 0.90, pairs with this label have 0.90 on average; "
        "fast has 0.10, pairs with this label have 0.74",
    }
    assert [(each.row, each.label, each.suggested, each.rank) for each in found.tasks["warmth"].faults] == [
        (2, "a bit", "yes", 1),
        (5, "a bit", "yes", 2),
    ]
    table = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert [
        {name: str(value) for name, value in asdict(each).items()} for task in found.tasks.values() for each in task.faults
    ] == table
    for text in (as_csv(found), json.dumps(asdict(found), allow_nan=False)):
        assert "secret" not in text
        assert "private" not in text


def test_only_labelled_pairs_that_a_model_predicts_unseen_are_judged(corpus: Corpus) -> None:
    known = of_all(corpus, pace=[3, 5])
    for name in known:
        known[name][8:] = np.nan
    found = audit(corpus, OutOfFold("1 run", known))
    assert found.covered == 8  # with a label of some task
    assert {name: (task.labelled, task.judged) for name, task in found.tasks.items()} == {"pace": (11, 7), "warmth": (12, 8)}
    assert [fault.row for fault in found.tasks["pace"].faults] == [6]  # row 4 has no label


def test_a_task_needs_two_labels_among_the_judged_pairs(corpus: Corpus) -> None:
    known = of_all(corpus)
    known["warmth"][[at for at in range(12) if at % 3]] = np.nan
    with pytest.raises(KitError) as error:
        audit(corpus, OutOfFold("1 run", known))
    assert str(error.value) == (
        "hand: warmth has 1 label among its 4 judged pairs (12 are labelled), expected at least 2; use --tasks without warmth"
    )


def test_runs_are_averaged_over_those_that_have_a_pair_in_their_test_part(corpus: Corpus, tmp_path: Path) -> None:
    plain, doubtful = of_all(corpus), of_all(corpus, pace=[0, 1])
    write_run(tmp_path / "a", corpus, range(6), plain)
    write_run(tmp_path / "b", corpus, range(4, -1, -1), doubtful)
    shutil.copytree(tmp_path / "b", tmp_path / "copied")
    write_run(tmp_path / "c", corpus, [6, 7], {"warmth": plain["warmth"]})
    write_run(tmp_path / "oracle", corpus, range(12), doubtful, oracle=True)
    (tmp_path / "notes").mkdir()
    with files.reserved(tmp_path / "d") as partial:
        (partial / "held").touch()
        found = from_runs(tmp_path, corpus, TWO)
    assert found.source == f"3 runs in {tmp_path}"
    assert found.remarks == (
        f"left out: {tmp_path / 'd.partial'}: in training",
        "left out: 1 oracle, which saw annotated spans at test time",
        "left out: 1 run with the very predictions of another: a copy",
    )
    pace, warmth = found.probabilities["pace"], found.probabilities["warmth"]
    assert pace[:3] == pytest.approx((plain["pace"] + doubtful["pace"])[:3] / 2)
    assert pace[[4, 5]] == pytest.approx(plain["pace"][[4, 5]])
    assert np.isnan(pace[3]).all()  # no label, so no run's answer is kept
    assert np.isnan(pace[6:]).all()
    assert np.isfinite(warmth[:8]).all()
    assert np.isnan(warmth[8:]).all()


def test_models_with_a_plugin_of_one_file_are_judged_too(sample: Corpus, tiny_roberta: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch.nn.functional import cross_entropy\nfrom empathy_kit import Loss, hookimpl\n\n"
        "def mine(task):\n    return lambda logits, target: cross_entropy(logits, target, reduction='none')\n\n"
        "@hookimpl\ndef empathy_kit_losses():\n    yield Loss('mine', mine)\n"
    )
    settings = {"loss": "mine", "encoder": str(tiny_roberta), "epochs": 1, "max_tokens": 16, "options": {"trunk.hidden": 8}}
    registry = load_registry([tmp_path / "mine.py"])
    first = next(cross_validate(configure(RunConfig(), settings), registry, sample, 2))
    assert all(np.isfinite(rows).all() for rows in first.probabilities.values())


def test_runs_without_a_task_that_is_judged_do_not_count(corpus: Corpus, tmp_path: Path) -> None:
    known = of_all(corpus)
    write_run(tmp_path / "a", corpus, range(12), {"warmth": known["warmth"]})
    write_run(tmp_path / "b", corpus, range(6), {"pace": known["pace"]})
    warmth = corpus.schema.select(["warmth"])
    assert from_runs(tmp_path, corpus, warmth).source == f"1 run in {tmp_path}"
    with pytest.raises(KitError) as error:
        from_runs(tmp_path / "b", corpus, warmth)
    assert str(error.value) == (
        f"--runs {tmp_path / 'b'}: 1 found, all unfinished, oracles or without warmth; expected at least one other"
    )


def test_runs_on_other_data_or_none_at_all_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert refusal(empty, corpus) == (
        f"--runs {empty}: no run found, expected folders that `empathy-kit run` or `empathy-kit compare` has written"
    )
    assert refusal(tmp_path / "gone", corpus) == f"{tmp_path / 'gone'}: no such folder, expected a folder with runs"
    write_run(tmp_path / "x" / "oracle", corpus, range(12), of_all(corpus), oracle=True)
    assert refusal(tmp_path / "x", corpus) == (
        f"--runs {tmp_path / 'x'}: 1 found, all unfinished, oracles or without pace, warmth; expected at least one other"
    )
    run = write_run(tmp_path / "x" / "run", corpus, range(12), of_all(corpus))
    relabelled = replace(corpus, name="other", pairs=(replace(corpus.pairs[0], levels=(1, 1)), *corpus.pairs[1:]))
    assert refusal(tmp_path / "x", relabelled) == (
        f"--runs {tmp_path / 'x' / 'oracle'}: a run on other data (hand) than --data other; "
        "give a folder whose runs have the same pairs and labels"
    )
    renamed = replace(corpus, pairs=tuple(replace(pair, pair_id=f"p{pair.row}") for pair in corpus.pairs))
    assert renamed.sha256() == corpus.sha256()
    assert refusal(run, renamed) == (
        f"{run / 'predictions.csv'}: has pairs that --data hand does not have; expected the same pair_id column"
    )
    with (run / "predictions.csv").open("a") as stream:
        stream.write("x\n")
    assert refusal(run, corpus) == (
        f"--runs: {run / 'predictions.csv'}: changed after the run (sha256 differs from the manifest)"
    )


def test_a_run_whose_labels_are_not_the_datas_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    other = replace(corpus, pairs=(replace(corpus.pairs[0], levels=(1, 1)), *corpus.pairs[1:]))
    run = write_run(tmp_path / "run", other, range(12), of_all(other), data={"name": "hand", "sha256": corpus.sha256()})
    assert refusal(run, corpus) == f"{run / 'predictions.csv'}: pace_true is not the label that --data hand has"


@pytest.fixture(scope="module")
def sample() -> Corpus:
    return load_corpus("sample")


def test_every_pair_is_predicted_once_by_a_model_that_saw_no_post_of_its_seeker(
    sample: Corpus, tiny_roberta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Corpus] = []

    def watched(config: RunConfig, registry: Registry, corpus: Corpus, split: Split) -> Trained:
        seen.append(corpus)
        return train(config, registry, corpus, split)

    monkeypatch.setattr(out_of_fold, "train", watched)
    settings = {
        "encoder": str(tiny_roberta),
        "epochs": 1,
        "max_tokens": 12,
        "tasks": ("ER", "IP"),
        "options": {"trunk.hidden": 8},
    }
    folds = list(cross_validate(configure(RunConfig(), settings), load_registry(), sample, 2))
    assert sorted(at for fold in folds for at in fold.positions) == list(range(300))
    for fold, given in zip(folds, seen, strict=True):
        assert fold.trained + fold.validated == len(given) == 300 - len(fold.positions)
        assert fold.validated > 0
        assert given.schema.names == ("ER", "IP")
        tested = [sample.pairs[at] for at in fold.positions]
        assert not {same_words(pair.seeker) for pair in tested} & {same_words(pair.seeker) for pair in given.pairs}
        assert not {pair.seeker_id for pair in tested} & {pair.seeker_id for pair in given.pairs}
    found = from_folds(sample, folds)
    assert found.source == "2 folds"
    assert {name: each.shape for name, each in found.probabilities.items()} == {"ER": (300, 3), "IP": (300, 3)}
    assert all(np.abs(each.sum(1) - 1).max() < 1e-5 for each in found.probabilities.values())
    assert {name: task.judged for name, task in audit(sample, found).tasks.items()} == {"ER": 300, "IP": 300}


def test_a_model_that_would_see_the_labels_is_refused(sample: Corpus) -> None:
    folds = cross_validate(configure(RunConfig(), {"rationale": "gold"}), load_registry(), sample, 2)
    with pytest.raises(KitError) as error:
        next(folds)
    assert str(error.value) == "--rationale gold: sees annotated spans, which give the label away; use another one"


def test_the_labels_of_other_tasks_are_left_behind(corpus: Corpus) -> None:
    assert of_tasks(corpus, None) is corpus
    found = of_tasks(corpus, ["warmth"])
    assert found.schema.names == ("warmth",)
    assert [pair.levels for pair in found.pairs] == [(row % 3,) for row in range(12)]
