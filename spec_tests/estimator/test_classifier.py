"""Laws of the classifier of texts: scikit-learn's conventions, with and without scikit-learn."""

from __future__ import annotations

import inspect
import pickle
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.backend import generator
from refllm.cli import main
from refllm.errors import UserError
from refllm.estimator import TextClassifier, conventions
from refllm.estimator.conventions import NotFittedError, seed_of
from refllm.parameters import named_leaves
from refllm.presets import CLASSIFY_SIZES, FIT_EPOCHS, FIT_SETTINGS
from refllm.trained import load_model
from spec_tests.commands.conftest import leave_the_allocator_alone
from spec_tests.tasks.test_classify import ROWS

TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]
SMALL: dict[str, Any] = {"context": 16, "layers": 1, "heads": 2, "width": 8, "vocabulary": 200, "lr": 0.02}


def made(**changes: Any) -> TextClassifier:
    return TextClassifier(**{**SMALL, "epochs": 30, "random_state": 0, **changes})


@pytest.fixture(scope="module")
def fitted() -> TextClassifier:
    return made().fit(TEXTS, LABELS)


def bits(classifier: TextClassifier) -> dict[str, bytes]:
    return {path: x.tobytes() for path, x in named_leaves(classifier.parameters_)}


def test_it_learns_and_predicts_the_most_probable_class(fitted: TextClassifier) -> None:
    assert fitted.classes_.tolist() == ["city", "fruit", "stone"]
    p = fitted.predict_proba(TEXTS)
    assert p.shape == (len(TEXTS), 3)
    numpy.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    numpy.testing.assert_allclose(fitted.predict_log_proba(TEXTS), numpy.log(p), rtol=1e-12)
    assert (fitted.predict(TEXTS) == fitted.classes_[p.argmax(axis=1)]).all()
    assert fitted.score(TEXTS, LABELS) > 0.95


@pytest.mark.every
def test_labels_of_any_kind_come_back_as_they_were(fitted: TextClassifier) -> None:
    """Also more than ten classes, whose numbers do not sort as their names do."""
    for names in ([30, 4, 5], [True, False, True], numpy.array(["b", "a", "b"], object)):
        given = [names[("city", "fruit", "stone").index(label)] for label in LABELS]
        one = made(epochs=1).fit(TEXTS, given)
        assert one.classes_.tolist() == sorted(set(given))
        assert set(one.predict(TEXTS[:9]).tolist()) <= set(given)
    many = [chr(ord("a") + i % 12) for i in range(120)]
    one = made(epochs=60, validation=0).fit(many, [i % 12 for i in range(120)])
    assert one.predict(many[:12]).tolist() == list(range(12))


def test_a_fit_gives_the_bits_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same texts in the same order, and a patience that ends both early."""
    leave_the_allocator_alone(monkeypatch)
    data = tmp_path / "data.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    how = [
        "--epochs",
        "12",
        "--seed",
        "5",
        "--patience",
        "1",
        "--threads",
        "1",
        "--class-weights",
        "--label-smoothing=0.2",
    ]
    assert main(["classify", "fit", str(data), "--out", str(tmp_path / "run"), *how, *flags]) == 0
    loaded = TextClassifier.load(tmp_path / "run")
    one = made(epochs=12, random_state=5, patience=1, class_weight="balanced", label_smoothing=0.2).fit(TEXTS, LABELS)
    assert bits(one) == bits(loaded)
    assert one.n_iter_ == loaded.n_iter_
    assert one.classes_.tolist() == loaded.classes_.tolist()
    assert (one.predict_proba(TEXTS) == loaded.predict_proba(TEXTS)).all()
    assert loaded.get_params()["width"] == 8
    assert loaded.get_params()["dropout"] == one.config_.dropout == CLASSIFY_SIZES["dropout"]


def test_a_fit_begins_from_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_the_allocator_alone(monkeypatch)
    data = tmp_path / "data.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    start = str(tmp_path / "run")
    assert main(["classify", "fit", str(data), "--out", start, "--steps", "2", "--threads", "1", *flags]) == 0
    one = made(start=start, tune="upper", epochs=2, width=99).fit(TEXTS, [label == "city" for label in LABELS])
    before, after = dict(named_leaves(load_model(Path(start), "cpu").parameters)), dict(named_leaves(one.parameters_))
    assert (before["token"] == after["token"]).all()
    assert (before["pooler.W"] != after["pooler.W"]).any()
    assert after["classes.W"].shape == (8, 2)
    assert main(["train", "--model", "ngram", "--data", str(data), "--out", str(tmp_path / "ngram")]) == 0
    with pytest.raises(UserError, match="is no run of refllm classify fit"):
        TextClassifier.load(tmp_path / "ngram")


@pytest.mark.parametrize("dropout", [None, 0.2])
def test_a_fit_that_begins_from_a_run_gives_the_bits_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropout: float | None
) -> None:
    """With the dropout of the run, unless another one is given."""
    leave_the_allocator_alone(monkeypatch)
    data, start = tmp_path / "data.csv", str(tmp_path / "start")
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in ROWS))
    fit = ["classify", "fit", str(data), "--threads", "1"]
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    assert main([*fit, "--out", start, "--steps", "2", "--dropout", "0.3", *flags]) == 0
    given = [] if dropout is None else [f"--dropout={dropout}"]
    assert main([*fit, "--out", str(tmp_path / "run"), "--from", start, "--epochs", "2", "--seed", "5", *given]) == 0
    one = TextClassifier(start=start, epochs=2, random_state=5, dropout=dropout).fit(TEXTS, LABELS)
    assert one.config_.dropout == (0.3 if dropout is None else dropout)
    assert bits(one) == bits(TextClassifier.load(tmp_path / "run"))


@pytest.mark.every
def test_the_seed_says_everything(fitted: TextClassifier) -> None:
    assert bits(made().fit(TEXTS, LABELS)) == bits(fitted)
    two = [made(n_jobs=2, epochs=2).fit(TEXTS, LABELS) for _ in range(2)]
    assert bits(two[0]) == bits(two[1])
    alone = made(epochs=2).fit(TEXTS, LABELS)
    numpy.testing.assert_allclose(two[0].predict_proba(TEXTS), alone.predict_proba(TEXTS), atol=1e-3)
    assert bits(made(random_state=1).fit(TEXTS, LABELS)) != bits(fitted)
    state = numpy.random.RandomState(3)
    assert seed_of(state) != seed_of(state)
    assert seed_of(numpy.random.RandomState(3)) == seed_of(numpy.random.RandomState(3))
    for wrong in (-1, 0.5, generator(1)):
        with pytest.raises(ValueError, match="random_state is None, a whole number"):
            seed_of(wrong)


def test_what_is_held_out_chooses_the_weights_and_teaches_nothing() -> None:
    """Without early stopping all texts teach; a word of a text held out is unknown to the tokenizer."""
    signs = [chr(0x4E00 + i) for i in range(len(TEXTS))]
    texts = [f"{text} {sign}" for text, sign in zip(TEXTS, signs, strict=True)]
    for validation, least, most in ((0, 1.0, 1.0), (0.3, 0.6, 0.8)):
        known = made(epochs=1, validation=validation).fit(texts, LABELS).tokenizer_.vocabulary
        assert least <= sum(sign in known for sign in signs) / len(signs) <= most


def test_the_score_is_the_share_of_texts_that_get_their_label(fitted: TextClassifier) -> None:
    """Of a list, an array or a column; a label that was never seen is wrong."""
    given = fitted.predict(TEXTS)
    share = sum(a == b for a, b in zip(given, LABELS, strict=True)) / len(TEXTS)
    for y in (LABELS, numpy.array(LABELS), numpy.array(LABELS, object), iter(LABELS)):
        assert fitted.score(TEXTS, y) == pytest.approx(share)
    with pytest.warns(UserWarning, match="column-vector"):
        assert fitted.score(TEXTS, numpy.array(LABELS)[:, None]) == pytest.approx(share)
    assert fitted.score(TEXTS[:3], ["metal", *given[1:3]]) == pytest.approx(2 / 3)
    assert fitted.score(TEXTS[:3], ["metal", *given[1:3]], sample_weight=[2, 1, 1]) == 0.5
    counted = made(epochs=1).fit(TEXTS, [label == "city" for label in LABELS])
    assert counted.score(TEXTS, counted.predict(TEXTS).astype(int)) == 1


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (LABELS[:1], f"{len(TEXTS)} texts and 1 labels"),
        (LABELS[:-1], f"{len(TEXTS)} texts and {len(TEXTS) - 1} labels"),
        ([], "0 labels"),
        (range(len(TEXTS)), "the labels are numbers, the classes are names"),
        (None, "requires y to be passed"),
        (set(LABELS), "labels are in a set"),
        (numpy.array([LABELS, LABELS]), "one a text"),
    ],
)
def test_labels_that_cannot_be_scored_are_a_value_error(fitted: TextClassifier, labels: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fitted.score(TEXTS, labels)
    with pytest.raises(ValueError, match=r"sample_weight must be \(2,\), one a text; got \(1,\)"):
        fitted.score(TEXTS[:2], LABELS[:2], sample_weight=[1])


@pytest.mark.parametrize("kind", [set, frozenset, dict.fromkeys, lambda x: dict.fromkeys(x).keys()])
def test_what_has_no_order_is_refused(fitted: TextClassifier, kind: Any) -> None:
    """Its texts and labels would be paired by chance."""
    texts = [f"{text} {number}" for number, text in enumerate(TEXTS)]
    with pytest.raises(ValueError, match=r"the texts are in a .*; give a list"):
        made().fit(kind(texts), LABELS)
    with pytest.raises(ValueError, match=r"the labels are in a .*; give a list"):
        made().fit(TEXTS, kind(texts))
    with pytest.raises(ValueError, match=r"the texts are in a .*; give a list"):
        fitted.predict_proba(kind(texts))


def test_it_is_pickled_and_predicts_the_same(fitted: TextClassifier) -> None:
    again = pickle.loads(pickle.dumps(fitted))
    assert (again.predict_proba(TEXTS) == fitted.predict_proba(TEXTS)).all()
    assert again.get_params() == fitted.get_params()


def test_texts_may_come_in_any_container_and_be_empty(fitted: TextClassifier) -> None:
    """What LIME and SHAP take out of a text may leave nothing."""
    wanted = fitted.predict_proba(TEXTS[:3])
    for given in (tuple(TEXTS[:3]), numpy.array(TEXTS[:3]), numpy.array(TEXTS[:3], object), iter(TEXTS[:3])):
        assert (fitted.predict_proba(given) == wanted).all()
    assert fitted.predict_proba(["", "pear"]).shape == (2, 3)


def test_the_parameters_are_those_of_the_constructor_and_the_defaults_those_of_the_command() -> None:
    signature = inspect.signature(TextClassifier).parameters
    one = TextClassifier()
    assert one.get_params() == {name: parameter.default for name, parameter in signature.items()}
    assert vars(one) == one.get_params()
    defaults = {**CLASSIFY_SIZES, "dropout": None, "epochs": FIT_EPOCHS, "batch": FIT_SETTINGS["batch"]}
    for name, value in defaults.items():
        assert one.get_params()[name] == value
    assert one.set_params(width=4, lr=None).width == 4
    assert repr(one) == "TextClassifier(width=4)"
    with pytest.raises(ValueError, match="Invalid parameter 'depth'"):
        one.set_params(depth=3)


@pytest.mark.parametrize(
    ("texts", "labels", "said"),
    [
        ([], [], "0 sample"),
        ("pear", ["a"], "give \\[text\\]"),
        (["a", 3], ["x", "y"], "text 2 is 3, of int; texts must be strings"),
        (["a", None], ["x", "y"], "text 2 is None"),
        (["a", float("nan")], ["x", "y"], "text 2 is nan"),
        (numpy.ones((2, 2)), ["x", "y"], "one-dimensional"),
        (None, ["x", "y"], "texts must be in a list or an array; got None"),
        (numpy.array("a"), ["x"], "one-dimensional"),
        (["a", "b"], "xy", "give \\[label\\]"),
        (["a", "b"], 3, "labels must be in a list or an array; got 3"),
        (["a", "b"], [1, "bad"], "several kinds, names and numbers"),
        (["a", "b"], numpy.array([1, "bad"], object), "several kinds, names and numbers"),
        (["a", "b"], ["x", float("nan")], "label 2 is NaN or missing"),
        (["a", "b"], [[1], [1, 2]], "one a text"),
        (["a", "b"], ["x"], "2 texts and 1 labels"),
        (["a", "b"], ["x", "x"], "one class"),
        (["a", "b"], None, "requires y to be passed"),
        (["a", "b"], [1.0, float("nan")], "label 2 is NaN or missing"),
        (["a", "b"], ["x", None], "label 2 is NaN or missing"),
        (["a", "b"], [0.5, 1.5], "Unknown label type"),
        (["a", "b"], [[1, 2], [3, 4]], "one a text"),
        (["a", "b", "c"], ["x", "y", "y"], "too few to hold out"),
    ],
)
def test_what_cannot_be_learnt_is_a_value_error(texts: Any, labels: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made().fit(texts, labels)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"epochs": 0}, "epochs"),
        ({"class_weight": {}}, "class_weight"),
        ({"lr": -1.0}, "lr"),
        ({"heads": 3}, "heads"),
        ({"lr": "x"}, "lr must be a number, got 'x'"),
        ({"epochs": None}, "epochs must be a number, got None"),
        ({"dropout": [0.1]}, "dropout must be a number"),
        ({"batch": 2.0}, "batch must be a whole number, got 2.0"),
        ({"width": True}, "width must be a whole number, got True"),
        ({"n_jobs": "all"}, "n_jobs must be a whole number"),
        ({"n_jobs": 0}, "n_jobs must not be 0; give 1 process or more, or -1 for all cores"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64; got 'float16'"),
    ],
)
def test_parameters_are_checked_by_fit(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made(**changes).fit(TEXTS, LABELS)


def test_processes_are_counted_as_joblib_counts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conventions, "available_cores", lambda: 4)
    counted = {jobs: conventions.processes(jobs) for jobs in (None, 1, 7, -1, -2, -4, -100)}
    assert counted == {None: 1, 1: 1, 7: 7, -1: 4, -2: 3, -4: 1, -100: 1}


@pytest.mark.parametrize(("reports", "step"), [(1, 2), (1000, 1)])
def test_a_training_that_diverges_says_so(reports: int, step: int) -> None:
    """Weights that were spoiled show in the next loss, or in the report before it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with pytest.raises(UserError, match=f"at step {step}: the training diverged; fit with a lower lr"):
            made(lr=1e30, reports=reports).fit(TEXTS, LABELS)


def test_before_fit_the_error_is_of_scikit_learn_s_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (ValueError, AttributeError):
        with pytest.raises(kind, match="is not fitted yet"):
            made().predict(TEXTS)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(NotFittedError, match="is not fitted yet"):
        made().predict_proba(TEXTS)


def test_it_works_where_scikit_learn_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.warns(UserWarning, match="column-vector"):
        one = made(epochs=1).fit(TEXTS, numpy.array(LABELS)[:, None])
    assert one.score(TEXTS, LABELS, sample_weight=numpy.ones(len(TEXTS))) >= 0
