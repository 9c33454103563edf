"""The scikit-learn classifier: what it learns from, what it gives back, what it refuses, what it leaves alone."""

from __future__ import annotations

import inspect
import io
import pickle
import pickletools
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from safetensors.torch import load
from sklearn.base import clone

from empathy_kit import EmpathyClassifier, KitError, __version__
from empathy_kit.config import RunConfig, configure
from empathy_kit.data.sources import load_corpus
from empathy_kit.data.splits import make_split
from empathy_kit.inference import estimator
from empathy_kit.plugins import load_registry
from empathy_kit.runs.train import run

PAIRS = load_corpus("sample").pairs
X = [(pair.seeker, pair.response) for pair in PAIRS[:40]]
WORDS = ("none", "some", "strong")
ER = [WORDS[pair.levels[0]] for pair in PAIRS[:40]]
ALL = np.array([pair.levels for pair in PAIRS[:40]])
SMALL = {"trunk.hidden": 8, "trunk.layers": 1}


def small(encoder: Path, **changes: Any) -> EmpathyClassifier:
    return EmpathyClassifier(**{"encoder": str(encoder), "epochs": 1, "max_tokens": 12, "lr": 0.01, "options": SMALL, **changes})


@pytest.fixture(scope="module")
def fitted(tiny_roberta: Path) -> EmpathyClassifier:
    return small(tiny_roberta, epochs=2).fit(X, ER)


def test_one_task_is_an_array_of_labels(fitted: EmpathyClassifier) -> None:
    probabilities = fitted.predict_proba(X)
    assert fitted.classes_.tolist() == ["none", "some", "strong"]
    assert probabilities.shape == (40, 3)
    assert probabilities.dtype == np.float64
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-15
    assert fitted.predict(X).tolist() == [WORDS[at] for at in probabilities.argmax(axis=1)]
    assert fitted.score(X, ER) == np.mean(fitted.predict(X) == ER)
    assert (fitted.n_features_in_, fitted.tasks_) == (2, ("y",))
    assert [epoch["epoch"] for epoch in fitted.history_] == [1, 2]
    assert set(fitted.history_[0]) == {
        *("epoch", "train_loss", "validation_loss", "validation_macro_f1", "validation_accuracy", "best", "steps")
    }


@pytest.mark.parametrize("labels", [("", "kind"), ("yes", "yes "), ("a\nb", "c"), ("x" * 300, "y")])
def test_labels_that_no_table_has_are_learnt_too(labels: tuple[str, str], tiny_roberta: Path) -> None:
    y = [labels[level == ER[0]] for level in ER]
    found = small(tiny_roberta).fit(X, y)
    assert sorted(found.classes_) == sorted(labels)
    assert set(found.predict(X)) <= set(labels)


def test_several_tasks_are_a_list_as_in_a_random_forest(tiny_roberta: Path) -> None:
    fitted = small(tiny_roberta).fit(np.array(X), ALL)
    assert [labels.tolist() for labels in fitted.classes_] == [[0, 1, 2], [0, 2], [0, 1, 2]]  # no pair here is at EX level 1
    assert [rows.shape for rows in fitted.predict_proba(X)] == [(40, 3), (40, 2), (40, 3)]
    assert fitted.predict(X).shape == (40, 3)
    assert fitted.tasks_ == ("y0", "y1", "y2")
    assert fitted.score(X, ALL) == pytest.approx(np.mean(fitted.predict(X) == ALL))


def test_a_missing_label_counts_in_no_loss_and_no_score(tiny_roberta: Path) -> None:
    pandas = pytest.importorskip("pandas")
    labels = pandas.DataFrame({"ER": ER, "EX": pandas.array(ALL[:, 1].tolist(), dtype="Int64"), "sad": ALL[:, 2] > 0})
    posts = pandas.DataFrame(X, columns=["seeker", "response"])
    labels.loc[::2, "ER"] = None
    labels.loc[1::3, "EX"] = pandas.NA
    fitted = small(tiny_roberta, loss="focal", options={**SMALL, "loss.ER.gamma": 3}).fit(posts, labels)
    assert [classes.tolist() for classes in fitted.classes_] == [list(WORDS), [0, 2], [False, True]]
    assert fitted.tasks_ == ("ER", "EX", "sad")
    assert fitted.feature_names_in_.tolist() == ["seeker", "response"]
    shown = set(range(40)) - set(fitted.validation_indices_.tolist())
    counted = [sum(task.class_counts) for task in fitted.trained_.tasks]
    assert counted == [sum(labels[name].notna()[at] for at in shown) for name in fitted.tasks_]
    said = fitted.predict(posts)
    assert said.dtype == object
    right = [
        np.mean([a == b for a, b in zip(labels[name], said[:, at], strict=True) if pandas.notna(a)])
        for at, name in enumerate(labels)
    ]
    assert fitted.score(posts, labels) == pytest.approx(np.mean(right))


def test_it_trains_as_a_run_does(tiny_roberta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pairs, parts and settings end in the same bits."""
    corpus = load_corpus("sample")
    monkeypatch.setattr(estimator, "hold_out", lambda *_: make_split(corpus, "grouped", 0))
    pandas = pytest.importorskip("pandas")
    labels = pandas.DataFrame([pair.levels for pair in corpus.pairs], columns=["ER", "EX", "IP"])
    fitted = small(tiny_roberta, loss="focal").fit([(pair.seeker, pair.response) for pair in corpus.pairs], labels)
    settings = {name: getattr(fitted, name) for name in estimator.SETTINGS}
    list(run(configure(RunConfig(), settings), load_registry(), tmp_path / "run"))
    assert fitted.trained_.files["model.safetensors"] == (tmp_path / "run" / "model" / "model.safetensors").read_bytes()


def test_the_parameters_are_settings_of_a_run_with_its_defaults() -> None:
    found = {name: each.default for name, each in inspect.signature(EmpathyClassifier).parameters.items()}
    own = {"options": None, "validation_fraction": 0.15, "random_state": 0}
    assert found == {name: getattr(RunConfig, name) for name in estimator.SETTINGS if name != "options"} | own


def test_equal_seeker_posts_and_equal_groups_are_held_out_together(tiny_roberta: Path) -> None:
    posts = [(f"{post.upper() if at % 2 else post}", reply) for at, (post, reply) in enumerate([X[at // 4] for at in range(80)])]
    held = small(tiny_roberta).fit(posts, ER * 2).validation_indices_
    assert 0 < len(held) < 40
    assert len(held) == 4 * len({at // 4 for at in held})
    people = [at % 10 if at < 20 else float(at % 10) for at in range(40)]  # as a gap in a column makes of whole numbers
    held = small(tiny_roberta).fit(X, ER, groups=people).validation_indices_
    assert 0 < len(held) < 20
    assert len(held) == 4 * len({people[at] for at in held})


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_pairs_without_a_group_are_not_one_group(missing: Any) -> None:
    posts = [estimator.Post(f"post {at}", "so sorry") for at in range(4)]
    pandas = pytest.importorskip("pandas")
    for groups in (["ann", missing, missing, "ann"], pandas.Series(["ann", missing, missing, "ann"])):
        pairs = estimator._pairs(posts, np.zeros((4, 1), dtype=np.int64), groups)
        assert [pair.seeker_id for pair in pairs] == ["ann", "", "", "ann"]


def seekers(groups: Any) -> list[str]:
    posts = [estimator.Post(f"post {at}", "so sorry") for at in range(len(groups))]
    return [pair.seeker_id for pair in estimator._pairs(posts, np.zeros((len(groups), 1), dtype=np.int64), groups)]


@pytest.mark.parametrize(
    ("groups", "found"),
    [
        ([12, 12.0, "12", "12.0", " 12 ", Decimal(12), np.int8(12), np.float32(12)], ["12"] * 8),
        (np.array([12, 12.0, "12.0", None, np.nan, "", " "], dtype=object), ["12"] * 3 + [""] * 4),
        (np.array([3.0, np.nan]), ["3", ""]),
        (np.array([[1], [2]]), ["1", "2"]),
        (("012", "7e12", "ann lee"), ["012", "7e12", "ann lee"]),
    ],
)
def test_a_group_is_read_as_a_tables_seeker_id(groups: Any, found: list[str]) -> None:
    assert seekers(groups) == found


def test_a_group_may_be_any_column_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    for dtype in ("Int64", "object", "float", "category"):
        column = pandas.Series([7, None, 7, 8], index=[5, 5, 6, 7], dtype=dtype)
        assert seekers(column) == seekers(column.to_frame()) == ["7", "", "7", "8"]
    for dtype in ("string", "object", "category"):
        assert seekers(pandas.Series(["ann", pandas.NA, "12.0"], dtype=dtype)) == ["ann", "", "12"]
    assert seekers(pandas.Categorical(["ann", None, "ann"])) == ["ann", "", "ann"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["ann", "nan"], "groups, pair 1: 'nan' found, expected an id, or an empty cell where it is missing"),
        (np.array(["None", "ann"]), "groups, pair 0: 'None' found, expected an id, or an empty cell where it is missing"),
        (np.array(["ann", np.nan]), "groups, pair 1: 'nan' found, expected an id, or an empty cell where it is missing"),
        ([4, "NA"], "groups, pair 1: 'NA' found, expected an id, or an empty cell where it is missing"),
        ([4, 4.5], "groups, pair 1: a number with a fraction found, expected text or a whole number"),
        ([4, 1e17], "groups, pair 1: a rounded number found, expected all digits; save the column as text"),
        (np.array([True, False]), "groups, pair 0: a boolean found, expected text"),
        ([[1, 2], [3, 4]], "groups has shape (2, 2), expected (n,) identifiers"),
    ],
)
def test_groups_that_a_table_would_refuse_are_refused_by_position(groups: Any, message: str, tiny_roberta: Path) -> None:
    with pytest.raises(ValueError) as error:
        small(tiny_roberta).fit(X[:2], [0, 1], groups=groups)
    assert str(error.value) == message


def test_a_task_without_a_label_is_left_out_of_the_score(tiny_roberta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = small(tiny_roberta)
    monkeypatch.setattr(fitted, "predict", lambda posts: np.array([[0, 2, 1]] * len(posts)))
    labels = np.array([[0, None, 1], [1, None, 1], [0, None, None]], dtype=object)
    assert fitted.score(X[:3], labels) == pytest.approx((2 / 3 + 1) / 2)
    assert fitted.score(X[:3], labels, sample_weight=[0, 1, 3]) == pytest.approx((3 / 4 + 1) / 2)
    assert fitted.score(X[:3], labels, sample_weight=[0, 0, 1]) == 1  # the third task's labels weigh nothing
    for nothing in (np.full((3, 3), None), np.full((3, 3), np.nan)):
        with pytest.raises(ValueError) as error:
            fitted.score(X[:3], nothing)
        assert str(error.value) == "y: no task has a label that counts, expected at least one"


@pytest.mark.parametrize(("pairs", "fraction"), [(2, 0.15), (40, 0.0)])
def test_where_no_pair_can_be_held_out_the_training_pairs_choose_the_epoch(
    pairs: int, fraction: float, tiny_roberta: Path
) -> None:
    labels = [at % 2 for at in range(pairs)]
    fitted = small(tiny_roberta, validation_fraction=fraction).fit(X[:pairs], labels)
    assert fitted.validation_indices_.tolist() == []
    assert fitted.trained_.tasks[0].class_counts == (pairs // 2, pairs // 2)


def test_a_seed_decides_and_the_process_random_states_neither_count_nor_change(
    fitted: EmpathyClassifier, tiny_roberta: Path
) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    again = clone(fitted).fit(X, ER)
    assert np.array_equal(again.predict_proba(X), fitted.predict_proba(X))
    after = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    assert torch.equal(after[0], before[0])
    assert after[1:] == before[1:]
    other = clone(fitted).set_params(random_state=np.random.RandomState(3)).fit(X, ER)
    assert not np.array_equal(other.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize("tool", [pickle, joblib])
def test_a_fitted_classifier_is_stored_as_bytes_and_settings(tool: Any, fitted: EmpathyClassifier) -> None:
    fitted.predict(X)  # its modules are built now, and stay behind
    stream = io.BytesIO()
    tool.dump(fitted, stream)
    stream.seek(0)
    assert np.array_equal(tool.load(stream).predict_proba(X), fitted.predict_proba(X))
    assert len(load(fitted.trained_.files["model.safetensors"])) > 10
    named = {str(argument) for _, argument, _ in pickletools.genops(pickle.dumps(fitted)) if argument is not None}
    assert not [name for name in named if name.startswith(("torch", "transformers", "tokenizers", "safetensors"))]


def test_a_stored_classifier_says_which_plugin_is_missing(fitted: EmpathyClassifier) -> None:
    stored = pickle.loads(pickle.dumps(fitted))
    stored.trained_.config["trunk"] = stored.trained_.providers["trunk"]["name"] = "tree"
    with pytest.raises(ValueError) as error:
        stored.predict(X)
    assert str(error.value).startswith(f"trunk tree: the recorded run had it from empathy-kit {__version__}, which is missing;")


NO_POST = [("I am sad.", "Hello."), ("I am sad.", " ")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": "nope"}, "loss nope: unknown; there are ce, focal, weighted"),
        ({"options": {"loss.gama": 1}}, "loss ce: unknown option 'gama'; its options: none"),
        (
            {"options": {"los.gamma": 1}},
            "options los.gamma: unknown, expected KIND.OPTION with a kind of loss, rationale, head, sampler, trunk, or "
            "loss.y.OPTION and head.y.OPTION for one task of y",
        ),
        ({"options": [1]}, "options: a list found, expected names and values such as loss.gamma 1.5"),
        ({"encoder_lr": 20}, "encoder_lr 20.0: out of range, expected 0 to 10"),
        ({"epochs": "many"}, "epochs many: expected a whole number"),
        ({"random_state": -1}, "random_state -1: out of range, expected 0 to 4294967295"),
        ({"validation_fraction": 1}, "validation_fraction 1: out of range, expected at least 0 and less than 1"),
        ({"max_tokens": 1000}, "max_tokens 1000: {encoder} reads at most 128 tokens per post"),
        (
            {"rationale": "predicted"},
            "rationale predicted: it learns from annotated spans, and the training part has none of y; use rationale "
            "none, or a table with spans",
        ),
    ],
)
def test_a_parameter_is_refused_in_the_kits_words(changes: dict[str, Any], message: str, tiny_roberta: Path) -> None:
    with pytest.raises(KitError) as error:
        small(tiny_roberta, **{"options": {}, **changes}).fit(X, ER)
    assert isinstance(error.value, ValueError)
    assert str(error.value).startswith(message.format(encoder=tiny_roberta))  # more losses may be installed


@pytest.mark.parametrize(
    ("posts", "labels", "message"),
    [
        ([(1.5, 2.5)] * 2, [0, 1], "X, pair 0, seeker post: a number found, expected text"),
        (NO_POST, [0, 1], "X, pair 1, response post: empty, expected a post"),
        ([("a", "b", "c")] * 2, [0, 1], "X has 3 features, expected 2: the seeker post and the response post"),
        (X[0], [0, 1], "X is 1-dimensional, expected (n, 2) texts. Reshape your data: [(seeker, response), ...]"),
        ([X[0], ("a",)], [0, 1], "X is 1-dimensional, expected (n, 2) texts. Reshape your data: [(seeker, response), ...]"),
        (X[:2], [1, 1], "y: y has 1 class, expected at least 2 classes"),
        (X[:2], ["a", None], "y: no label at position 1, expected one for every pair"),
        (X[:3], [[1, None], [0, None], [0, None]], "y: y1 has no class, expected at least 2 classes"),
        (X[:2], [[1, "a"], ["b", "c"]], "y: the labels of y0 cannot be sorted, expected all of one type"),
        (X[:1] * 2002, [*range(1001)] * 2, "y: schema, task 1 (y): labels: 1001 found, expected at most 1000"),
    ],
)
def test_data_is_refused_without_its_text(posts: Any, labels: Any, message: str, tiny_roberta: Path) -> None:
    with pytest.raises(ValueError) as error:
        small(tiny_roberta).fit(posts, np.array(labels, dtype=object))
    assert str(error.value) == message


def test_weights_are_refused(tiny_roberta: Path) -> None:
    with pytest.raises(TypeError, match=r"got an unexpected keyword argument 'sample_weight'$"):
        small(tiny_roberta).fit(X, ER, sample_weight=[1] * 40)
