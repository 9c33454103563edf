"""What a model has to beat: bag-of-words baselines that take seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


def tfidf_probabilities(
    train: Sequence[str], levels: NDArray[np.int64], test: Sequence[str], classes: int, *, balanced: bool = False
) -> NDArray[np.float64]:
    """Probabilities (M, C) of the levels of texts by logistic regression on TF-IDF of words and word pairs.

    Args:
        train: texts to learn from.
        levels: (N,) their levels; one that none of them has gets probability 0.
        test: M texts to predict.
        classes: C, how many levels there are.
        balanced: weigh classes by their inverse frequency.
    """
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True),
        LogisticRegression(C=10.0, max_iter=2000, class_weight="balanced" if balanced else None),
    )
    model.fit(list(train), levels)
    found = np.zeros((len(test), classes))
    found[:, model.classes_] = model.predict_proba(list(test))
    return found
