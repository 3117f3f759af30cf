"""The classifier of texts in scikit-learn, LIME and SHAP; skipped where these are not installed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy
import pytest

from refllm.estimator import TextClassifier
from spec_tests.estimator.test_classifier import LABELS, TEXTS, made

sklearn = pytest.importorskip("sklearn", minversion="1.6", reason="scikit-learn is not installed")
pytestmark = pytest.mark.optional


@pytest.fixture(autouse=True)
def _their_warnings_are_theirs() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class RowsAsTexts(TextClassifier):
    """The classifier behind a spelling of numbers, since scikit-learn's checks know no texts: each row is a text."""

    def __init__(self, *, epochs: float = 1, random_state: Any = None) -> None:
        super().__init__(
            context=16, layers=1, heads=1, width=4, vocabulary=500, dropout=0.0, epochs=epochs, batch=64, validation=0,
            dtype="float64", random_state=random_state,
        )  # fmt: skip

    def fit(self, X: Any, y: Any) -> TextClassifier:
        return super().fit(self._spelt(X, reset=True), y)

    def predict_log_proba(self, X: Any) -> Any:
        self._require_fitted()
        return super().predict_log_proba(self._spelt(X, reset=False))

    def _spelt(self, X: Any, *, reset: bool) -> list[str]:
        from sklearn.utils.validation import validate_data

        return [" ".join(f"{x:.1f}" for x in row) for row in validate_data(self, X, reset=reset)]

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags

        tags = super().__sklearn_tags__()
        tags.input_tags = InputTags()
        tags.classifier_tags.poor_score = True  # an epoch of a tiny model is not about learning
        return tags


def test_scikit_learn_knows_what_it_takes() -> None:
    """It declares strings, for which scikit-learn has no checks, and says so."""
    from sklearn.base import is_classifier
    from sklearn.exceptions import SkipTestWarning
    from sklearn.utils import get_tags
    from sklearn.utils.estimator_checks import check_estimator

    tags = get_tags(made())
    assert (tags.input_tags.string, tags.input_tags.one_d_array, tags.input_tags.two_d_array) == (True, True, False)
    assert is_classifier(made())
    with pytest.warns(SkipTestWarning):
        check_estimator(made())


def test_all_checks_of_scikit_learn_pass_where_rows_of_numbers_are_spelt_as_texts() -> None:
    from sklearn.utils.estimator_checks import check_estimator

    found = check_estimator(RowsAsTexts(), on_fail=None, on_skip=None)
    passed = {one["check_name"] for one in found if one["status"] == "passed"}
    others = {one["check_name"]: one["status"] for one in found if one["status"] != "passed"}
    assert others.keys() <= {"check_array_api_input"}, others  # which needs SCIPY_ARRAY_API=1
    assert {"check_fit_idempotent", "check_classifiers_classes", "check_dont_overwrite_parameters"} <= passed
    assert len(passed) > 40


def test_a_plain_clone_is_unfitted_and_fits_to_the_same_bits() -> None:
    from sklearn.base import clone

    one = made(epochs=2).fit(TEXTS, LABELS)
    again = clone(one)
    assert not again.__sklearn_is_fitted__()
    assert (again.fit(TEXTS, LABELS).predict_proba(TEXTS) == one.predict_proba(TEXTS)).all()


def test_it_works_in_a_pipeline_a_cross_validation_and_a_search() -> None:
    from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import FunctionTransformer

    def lower(texts: Any) -> Any:
        return [text.lower() for text in texts]

    pipe = Pipeline([("lower", FunctionTransformer(lower)), ("classify", made(epochs=20))])
    assert pipe.fit(TEXTS, LABELS).score(TEXTS, LABELS) > 0.9
    assert pipe.predict_proba(TEXTS[:2]).shape == (2, 3)
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    assert cross_val_score(pipe, TEXTS, LABELS, cv=folds).mean() > 0.8
    search = GridSearchCV(pipe, {"classify__width": [2, 8], "classify__epochs": [1, 20]}, cv=folds)
    assert search.fit(TEXTS, LABELS).best_params_["classify__epochs"] == 20


def test_ensembles_and_other_scores_take_it() -> None:
    from sklearn.ensemble import VotingClassifier
    from sklearn.metrics import log_loss

    both = VotingClassifier([(str(seed), made(epochs=20, random_state=seed)) for seed in (1, 2)], voting="soft")
    p = both.fit(numpy.array(TEXTS, object), LABELS).predict_proba(numpy.array(TEXTS, object))
    assert log_loss(LABELS, p, labels=both.classes_) < 0.5


def test_lime_finds_the_word() -> None:
    lime_text = pytest.importorskip("lime.lime_text", reason="lime is not installed")
    one = made().fit(TEXTS, LABELS)
    explainer = lime_text.LimeTextExplainer(class_names=one.classes_.tolist(), random_state=0)
    found = explainer.explain_instance("rome and the chalk", one.predict_proba, labels=[0], num_samples=100)
    words = dict(found.as_list(label=0))
    assert words["rome"] > 0 > words["chalk"]


def test_shap_adds_up_to_the_probability() -> None:
    shap = pytest.importorskip("shap", reason="shap is not installed")
    one = made().fit(TEXTS, LABELS)
    explainer = shap.Explainer(one.predict_proba, shap.maskers.Text(r"\W+"), output_names=one.classes_.tolist())
    found = explainer(["rome and the chalk"], silent=True)
    whole = found.values[0].sum(axis=0) + found.base_values[0]
    numpy.testing.assert_allclose(whole, one.predict_proba(["rome and the chalk"])[0], atol=1e-6)
    words = dict(zip((word.strip() for word in found.data[0]), found.values[0][:, 0], strict=True))
    assert words["rome"] > 0
