"""What scikit-learn expects of an estimator's input, seed and errors, without scikit-learn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray


def texts_of(X: Iterable[str]) -> list[str]:
    """The texts of a list, a column or a one-dimensional array. ValueError for anything else."""
    if isinstance(X, str | bytes):
        raise ValueError("one text was given where a list of texts belongs; give [text]")
    shape = getattr(X, "shape", None)
    if shape is not None and len(shape) != 1:
        raise ValueError(f"texts must be one-dimensional, a string a text; got an array of shape {shape}")
    texts = list(X if isinstance(X, Iterable) else np.asarray(X))
    if not texts:
        raise ValueError("0 sample(s) (shape=(0,)) while a minimum of 1 is required: give a text")
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise ValueError(f"text {number} is {text!r}, of {type(text).__name__}; texts must be strings")
    return texts


def labels_of(y: Iterable[Any] | None, estimator: object) -> NDArray[Any]:
    """The labels as an array (N,). ValueError for missing ones, numbers with a fraction, and several a text."""
    if y is None:
        raise ValueError(f"{type(estimator).__name__} requires y to be passed, but the target y is None")
    labels = np.asarray(y if hasattr(y, "__array__") else list(y))
    if labels.ndim == 2 and labels.shape[1] == 1:
        _warn_of_a_column()
        labels = labels.ravel()
    if labels.ndim != 1:
        raise ValueError(f"labels must be one-dimensional, one a text; got an array of shape {labels.shape}")
    for number, label in enumerate(labels.tolist(), start=1):
        if label is None or (isinstance(label, float) and math.isnan(label)):
            raise ValueError(f"label {number} is NaN or missing; give each text a label")
    if labels.dtype.kind == "f" and (np.isinf(labels).any() or (labels != np.floor(labels)).any()):
        raise ValueError(
            "Unknown label type: continuous (or infinity). Labels are names or whole numbers, one for each class"
        )
    return labels


def _warn_of_a_column() -> None:
    kind: type[Warning] = UserWarning
    with suppress(ImportError):
        from sklearn.exceptions import DataConversionWarning

        kind = DataConversionWarning
    warnings.warn("A column-vector y was passed when a 1d array was expected; it is flattened", kind, stacklevel=4)


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
