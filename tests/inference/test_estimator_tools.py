"""scikit-learn's own tools on the classifier: its checks, cross-validation, search, calibration."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import validate_data

from empathy_kit import EmpathyClassifier
from empathy_kit.data.sources import load_corpus
from empathy_kit.inference import estimator
from empathy_kit.inference.estimator import EstimatorError, Post
from empathy_kit.plugins import load_registry
from empathy_kit.runs import memory

PAIRS = load_corpus("sample").pairs
X = np.array([(pair.seeker, pair.response) for pair in PAIRS[:40]], dtype=object)
Y = np.array([int(pair.levels[0] > 0) for pair in PAIRS[:40]])
NUMBERS = "its X holds numbers, and a post is text"
# Each of these fits on an array of numbers, most often of three or more columns.
DO_NOT_APPLY = dict.fromkeys(
    (
        "check_fit_score_takes_y",
        "check_estimators_overwrite_params",
        "check_dont_overwrite_parameters",
        "check_estimators_fit_returns_self",
        "check_readonly_memmap_input",
        "check_n_features_in_after_fitting",
        "check_positive_only_tag_during_fit",
        "check_estimators_dtypes",
        "check_dtype_object",
        "check_pipeline_consistency",
        "check_estimators_nan_inf",
        "check_estimators_pickle",
        "check_f_contiguous_array_estimator",
        "check_classifier_data_not_an_array",
        "check_classifiers_classes",
        "check_classifier_multioutput",
        "check_classifiers_train",
        "check_classifiers_multilabel_representation_invariance",
        "check_classifiers_multilabel_output_format_predict",
        "check_classifiers_multilabel_output_format_predict_proba",
        "check_classifiers_multilabel_output_format_decision_function",
        "check_supervised_y_2d",
        "check_methods_sample_order_invariance",
        "check_methods_subset_invariance",
        "check_dict_unchanged",
        "check_fit_idempotent",
        "check_fit_check_is_fitted",
        "check_n_features_in",
        "check_fit2d_predict1d",
    ),
    NUMBERS,
)


@pytest.fixture(autouse=True)
def one_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits are many here: the installed distributions are looked through once."""
    registry = load_registry()
    for module in (estimator, memory):
        monkeypatch.setattr(module, "load_registry", lambda: registry)


def small(kind: type[EmpathyClassifier], encoder: Path, **changes: Any) -> EmpathyClassifier:
    return kind(**{"encoder": str(encoder), "trunk": "mean", "epochs": 1, "max_tokens": 8, "batch_size": 64, **changes})


class OfNumbers(EmpathyClassifier):
    """The classifier with one change: it reads a row of numbers as a pair of posts that hold them."""

    def _read(self, X: Any, *, reset: bool) -> list[Post]:  # noqa: N803
        texts = (" ".join(f"{number:.1f}" for number in row) for row in validate_data(self, X, reset=reset, dtype=np.float64))
        return [Post(text, text) for text in texts]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True  # a random encoder of 32 numbers
        return tags


def outcomes(classifier: EmpathyClassifier, expected: dict[str, str]) -> dict[str, set[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(classifier, expected_failed_checks=expected, on_skip=None, on_fail=None)
    return {
        status: {each["check_name"] for each in results if each["status"] == status} for status in ("passed", "failed", "xfail")
    }


def test_of_scikit_learns_checks_only_those_with_numbers_do_not_apply(tiny_roberta: Path) -> None:
    found = outcomes(small(EmpathyClassifier, tiny_roberta), DO_NOT_APPLY)
    assert found["failed"] == set()
    assert found["xfail"] == set(DO_NOT_APPLY)


def test_where_numbers_are_written_as_posts_every_one_of_them_applies_and_passes(tiny_roberta: Path) -> None:
    found = outcomes(small(OfNumbers, tiny_roberta), {})
    assert found["failed"] == set()
    has_no_decision_function = {"check_classifiers_multilabel_output_format_decision_function"}
    assert set(DO_NOT_APPLY) - found["passed"] == has_no_decision_function


def test_cross_validation_by_groups_gives_the_same_where_two_fits_run_at_once(tiny_roberta: Path) -> None:
    classifier, settings = small(EmpathyClassifier, tiny_roberta), {"cv": GroupKFold(2), "scoring": "neg_log_loss"}
    people = np.arange(40) // 2
    with joblib.parallel_config("threading", n_jobs=2):
        scores = cross_val_score(classifier, X, Y, groups=people, error_score="raise", **settings)
    folds = GroupKFold(2).split(X, Y, people)
    alone = [-log_loss(Y[test], clone(classifier).fit(X[train], Y[train]).predict_proba(X[test])) for train, test in folds]
    assert scores.tolist() == alone


def test_a_search_goes_over_losses_and_their_options(tiny_roberta: Path) -> None:
    grid = [
        {"loss": ["ce"], "batch_size": np.array([16, 64])},
        {"loss": ["focal"], "options": [{"loss.gamma": gamma} for gamma in np.array([0.5, 2.0])]},
    ]
    classifier = small(EmpathyClassifier, tiny_roberta)
    search = GridSearchCV(classifier, grid, scoring=["accuracy", "neg_log_loss"], refit="neg_log_loss", cv=2, error_score="raise")
    search.fit(X, Y)
    assert len(set(search.cv_results_["mean_test_neg_log_loss"])) == 4
    assert search.best_estimator_.get_params() == {**classifier.get_params(), **search.best_params_}
    assert search.predict(X).shape == (40,)
    with pytest.raises(EstimatorError, match=r"^loss focal: unknown option 'gama'; its options: gamma"):
        clone(classifier).set_params(loss="focal", options={"loss.gama": 1}).fit(X, Y)


def test_its_probabilities_can_be_calibrated(tiny_roberta: Path) -> None:
    classifier = small(EmpathyClassifier, tiny_roberta)
    calibrated = CalibratedClassifierCV(classifier, method="sigmoid", cv=2).fit(X, Y)
    probabilities = calibrated.predict_proba(X)
    assert probabilities.shape == (40, 2)
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert not np.allclose(probabilities, clone(classifier).fit(X, Y).predict_proba(X))
