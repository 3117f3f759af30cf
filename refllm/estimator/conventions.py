"""What scikit-learn expects of an estimator's input, seed and errors, without scikit-learn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, MappingView, Set
from contextlib import suppress
from numbers import Integral, Number, Real
from types import NoneType
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from refllm.workers import available_cores, require_threads


def texts_of(X: Iterable[str]) -> list[str]:
    """The texts of a list, a column or a one-dimensional array. ValueError for anything else."""
    found = _in_order(X, "text")
    if isinstance(found, np.ndarray) and found.ndim != 1:
        raise ValueError(f"texts must be one-dimensional, a string a text; got an array of shape {found.shape}")
    texts = list(found)
    if not texts:
        raise ValueError("0 sample(s) (shape=(0,)) while a minimum of 1 is required: give a text")
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise ValueError(f"text {number} is {text!r}, of {type(text).__name__}; texts must be strings")
    return texts


def labels_of(y: Iterable[Any] | None, estimator: object) -> NDArray[Any]:
    """The labels as an array (N,). ValueError for missing ones, numbers with a fraction, several a text, and names
    among numbers, which NumPy would take for names too."""
    if y is None:
        raise ValueError(f"{type(estimator).__name__} requires y to be passed, but the target y is None")
    found = _in_order(y, "label")
    given = np.asarray(found, object)
    if given.ndim == 2 and given.shape[1] == 1:
        _warn_of_a_column()
        given = given.ravel()
    if given.ndim != 1:
        raise ValueError(f"labels must be one-dimensional, one a text; got an array of shape {given.shape}")
    for number, label in enumerate(given.tolist(), start=1):
        if label is None or (isinstance(label, float) and math.isnan(label)):
            raise ValueError(f"label {number} is NaN or missing; give each text a label")
        if isinstance(label, list | tuple):
            raise ValueError(f"label {number} is {label!r}; labels must be one-dimensional, one a text")
    if len(kinds_of(given)) > 1:
        raise ValueError(f"the labels are of several kinds, {' and '.join(kinds_of(given))}; give labels of one kind")
    labels = np.asarray(found).ravel()
    if labels.dtype.kind == "f" and (np.isinf(labels).any() or (labels != np.floor(labels)).any()):
        raise ValueError(
            "Unknown label type: continuous (or infinity). Labels are names or whole numbers, one for each class"
        )
    return labels


def kinds_of(labels: NDArray[Any]) -> list[str]:
    """What the labels are: names, numbers, or of which other types."""

    def kind(label: Any) -> str:
        if isinstance(label, str):
            return "names"
        return "numbers" if isinstance(label, Number | np.generic) else type(label).__name__

    return sorted({kind(label) for label in labels.tolist()})


def require_pairs(texts: int, labels: int) -> None:
    """ValueError unless there are as many labels as texts."""
    if texts != labels:
        raise ValueError(f"{texts} texts and {labels} labels: give a label for each text")


def _in_order(values: Any, one: str) -> NDArray[Any] | list[Any]:
    """The values as a list, or as the array that they are. ValueError for a single one, and where their order would
    be chance."""
    if isinstance(values, str | bytes):
        raise ValueError(f"one {one} was given where a list of {one}s belongs; give [{one}]")
    if isinstance(values, Set | Mapping | MappingView):
        raise ValueError(
            f"the {one}s are in a {type(values).__name__}, and texts and labels are paired by their order; give a list"
        )
    if hasattr(values, "__array__"):
        return np.asarray(values)
    if not isinstance(values, Iterable):
        raise ValueError(f"{one}s must be in a list or an array; got {values!r}")
    return list(values)


def _warn_of_a_column() -> None:
    kind: type[Warning] = UserWarning
    with suppress(ImportError):
        from sklearn.exceptions import DataConversionWarning

        kind = DataConversionWarning
    warnings.warn("A column-vector y was passed when a 1d array was expected; it is flattened", kind, stacklevel=4)


def require_numbers(parameters: Mapping[str, Any], annotations: Mapping[str, Any]) -> None:
    """ValueError for a parameter that is not the number, or the whole number, that its annotation asks for."""
    for name, value in parameters.items():
        wanted = get_args(annotations[name]) or (annotations[name],)
        for kind, number, words in ((int, Integral, "a whole number"), (float, Real, "a number")):
            if kind not in wanted or (value is None and NoneType in wanted):
                continue
            if isinstance(value, bool) or not isinstance(value, number):
                raise ValueError(f"{name} must be {words}, got {value!r}")


def processes(n_jobs: int | None) -> int:
    """As joblib counts them: 1 for None, all cores for -1, all but one for -2; at least 1. ValueError for 0."""
    if n_jobs == 0:
        raise ValueError("n_jobs must not be 0; give 1 process or more, or -1 for all cores")
    if n_jobs is not None and n_jobs > 0:
        require_threads(n_jobs)
    if n_jobs is None or n_jobs > 0:
        return n_jobs or 1
    return max(1, available_cores() + 1 + n_jobs)


def seed_of(random_state: Any) -> int:
    """A seed of a whole number, of a numpy.random.RandomState, or, for None, of numpy's global one."""
    if random_state is None or random_state is np.random:
        return int(np.random.randint(2**31))
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    if isinstance(random_state, int | np.integer) and random_state >= 0:
        return int(random_state)
    raise ValueError(f"random_state is None, a whole number of at least 0 or a RandomState; got {random_state!r}")


def not_fitted_error() -> type[Exception]:
    """scikit-learn's NotFittedError, or where it is not installed one of the same kinds."""
    try:
        from sklearn import exceptions
    except ImportError:
        return NotFittedError
    kind: type[Exception] = exceptions.NotFittedError
    return kind


class NotFittedError(ValueError, AttributeError):
    """Something was asked of a classifier before `fit`."""
