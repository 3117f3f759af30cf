"""The classifier of `refllm classify fit` as an object, in memory. It needs scikit-learn for nothing."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import numpy as np
from numpy.typing import NDArray

from refllm.data.classification import by_length, marked_texts
from refllm.data.examples import Example, folded, split_examples
from refllm.errors import UserError
from refllm.estimator.conventions import (
    kinds_of,
    labels_of,
    not_fitted_error,
    processes,
    require_numbers,
    require_pairs,
    seed_of,
    texts_of,
)
from refllm.estimator.training import trained_in_memory
from refllm.invocation import command
from refllm.models import bert
from refllm.models.checks import require_one_of
from refllm.parameters import Tree, map_leaves
from refllm.plan import Plan
from refllm.presets import CLASSIFY_SIZES, DTYPES, FIT_EPOCHS, FIT_SETTINGS, rates
from refllm.tasks.classify import SPLIT_SEED, Classify, Labelled
from refllm.tasks.labels import label_log_probabilities
from refllm.tasks.start import begun_from
from refllm.tokenizers.wordpiece import WordPieceTokenizer
from refllm.train import Settings
from refllm.trained import load_model
from refllm.workers import Workers


class TextClassifier:
    """BERT with a head for labels: `fit(texts, labels)`, `predict(texts)`, `predict_proba(texts)`.

    The parameters are the flags of `refllm classify fit`. `start` is a run to begin from, whose sizes and tokenizer the
    classifier then has, and whose dropout unless one is given (without a run 0.1), and `tune` what of it is trained:
    "all", the last `upper` layers for "upper", or adapters of `rank` and `alpha` for "low-rank". With `validation`
    above 0 that share of the texts is held out, the same ones whatever the seed, and the weights that were best on it
    are kept; training ends after `patience` of `reports` without progress, never early with None. `class_weight` is
    None or "balanced". With a whole number for `random_state` every fit gives the same bits; `n_jobs` cuts the batches
    among so many processes, counted as joblib does: -1 for all cores, -2 for all but one, at least 1.

    After `fit`: `classes_`, `n_iter_` (steps), `config_`, `tokenizer_`, `parameters_`.

    Source:  documents 000 sec. 9 Q5; the interface: Buitinck et al. 2013 (arXiv:1309.0238) sec. 2.
    Raises:  ValueError if there are no texts, they are not strings or do not match the labels, or there is only one
             label; scikit-learn's NotFittedError, or one of the same kinds where it is not installed, before `fit`.
    """

    _estimator_type: ClassVar[str] = "classifier"  # what scikit-learn asked for before its version 1.6

    def __init__(
        self,
        *,
        context: int = CLASSIFY_SIZES["context"],
        layers: int = CLASSIFY_SIZES["layers"],
        heads: int = CLASSIFY_SIZES["heads"],
        width: int = CLASSIFY_SIZES["width"],
        dropout: float | None = None,
        vocabulary: int = CLASSIFY_SIZES["vocabulary"],
        epochs: float = FIT_EPOCHS,
        batch: int = FIT_SETTINGS["batch"],
        lr: float | None = None,
        start: str | None = None,
        tune: str = "all",
        upper: int = 1,
        rank: int = 4,
        alpha: float = 16.0,
        validation: float = 0.1,
        patience: int | None = 3,
        reports: int = 10,
        class_weight: str | None = None,
        label_smoothing: float = 0.0,
        dtype: str = "float32",
        n_jobs: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.context, self.layers, self.heads, self.width = context, layers, heads, width
        self.dropout, self.vocabulary = dropout, vocabulary
        self.epochs, self.batch, self.lr = epochs, batch, lr
        self.start, self.tune, self.upper, self.rank, self.alpha = start, tune, upper, rank, alpha
        self.validation, self.patience, self.reports = validation, patience, reports
        self.class_weight, self.label_smoothing = class_weight, label_smoothing
        self.dtype, self.n_jobs, self.random_state = dtype, n_jobs, random_state

    @classmethod
    def load(cls, directory: str | Path) -> TextClassifier:
        """The classifier that `refllm classify fit` made in this directory.

        Raises: UserError for a run of anything else.
        """
        run = load_model(Path(directory), "cpu")
        if run.description.get("task") != "classify" or "published" in run.description:
            raise UserError(f"{directory} is no run of {command('classify', 'fit')}; give one")
        sizes = {name: getattr(run.config, name) for name in ("context", "layers", "heads", "width", "dropout")}
        made = cls(**sizes, vocabulary=run.config.vocabulary, dtype=run.description["settings"]["dtype"])
        made._hold(run.description["labels"], run.config, run.tokenizer, run.parameters, run.description["step"])
        return made

    def fit(self, X: Iterable[str], y: Iterable[Any]) -> TextClassifier:
        """Learns the labels y of the texts X."""
        parameters = {name: getattr(self, name) for name in _parameter_names(TextClassifier)}
        require_numbers(parameters, get_type_hints(TextClassifier.__init__))
        require_one_of(self, "dtype", DTYPES)
        texts, labels = texts_of(X), labels_of(y, self)
        require_pairs(len(texts), len(labels))
        classes, places = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"a classifier needs two classes or more, and all labels are {classes[0]!r}: one class")
        seed = seed_of(self.random_state)
        task = self._task(texts, places.tolist(), len(classes))
        settings = Settings(
            **{**FIT_SETTINGS, "batch": self.batch, "lr": self._rate()}, seed=seed, shards=processes(self.n_jobs),
            dtype=self.dtype, device="cpu",
        )  # fmt: skip
        if not (self.epochs > 0 and math.isfinite(self.epochs)):
            raise ValueError(f"epochs must be above 0, got {self.epochs}")
        steps = math.ceil(self.epochs * math.ceil(len(task.read.train) / self.batch))
        plan = Plan(steps=steps, minutes=None, reports=self.reports, patience=self.patience)
        with Workers(settings.shards) as workers:
            trained, done = trained_in_memory(task, settings, plan, workers)
        self._hold(classes, task.config, task.tokenizer, task.full(trained), done)
        return self

    def predict(self, X: Iterable[str]) -> NDArray[Any]:
        """The most probable label of each text, (N,)."""
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def predict_proba(self, X: Iterable[str]) -> NDArray[np.float64]:
        """P(label | text), (N, labels) in the order of `classes_`."""
        return np.exp(self.predict_log_proba(X))

    def predict_log_proba(self, X: Iterable[str]) -> NDArray[np.float64]:
        """log P(label | text), (N, labels)."""
        self._require_fitted()
        marked, _ = marked_texts(texts_of(X), tokenizer=self.tokenizer_, context=self.config_.context)
        pieces = by_length(marked, pad=self.tokenizer_.special.pad)
        with Workers(processes(self.n_jobs)) as workers:
            rows = label_log_probabilities(self.parameters_, pieces, config=self.config_, device="cpu", workers=workers)
        found = np.array(rows, np.float64)
        return found - np.log(np.exp(found).sum(axis=1, keepdims=True))  # float32 rows add up to 1 only nearly

    def score(self, X: Iterable[str], y: Iterable[Any], sample_weight: Any = None) -> float:
        """The share of texts that get their label. A label that `fit` has not seen counts as wrong.

        Raises: ValueError for labels of another kind than the classes, and for more or fewer than the texts.
        """
        given, wanted = self.predict(X), labels_of(y, self)
        require_pairs(len(given), len(wanted))
        kinds, known = kinds_of(wanted), kinds_of(self.classes_)
        if kinds != known:
            raise ValueError(f"the labels are {kinds[0]}, the classes are {known[0]}; give labels as in classes_")
        if sample_weight is not None and np.shape(sample_weight) != given.shape:
            raise ValueError(f"sample_weight must be {given.shape}, one a text; got {np.shape(sample_weight)}")
        return float(np.average(given == wanted, weights=sample_weight))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters by name. `deep` is for objects with objects inside, which this one is not."""
        return {name: getattr(self, name) for name in _parameter_names(type(self))}

    def set_params(self, **params: Any) -> TextClassifier:
        """Sets parameters by name. ValueError for a name that no parameter has."""
        known = _parameter_names(type(self))
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"Invalid parameter {name!r} for estimator {self!r}; it has {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        signature = inspect.signature(type(self)).parameters
        given = {n: v for n, v in self.get_params().items() if n in signature and v != signature[n].default}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in given.items())})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "parameters_")

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks an estimator since version 1.6: a classifier of strings, in one dimension."""
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        return Tags(
            estimator_type="classifier", classifier_tags=ClassifierTags(), target_tags=TargetTags(required=True),
            input_tags=InputTags(one_d_array=True, two_d_array=False, string=True),
        )  # fmt: skip

    def _task(self, texts: list[str], places: list[int], labels: int) -> Classify:
        """The task of `refllm classify fit` on these texts, whose labels are the numbers of their classes."""
        examples = [
            Example(text, str(place), f"text {number}")
            for number, (text, place) in enumerate(zip(texts, places, strict=True), start=1)
        ]
        train, held_out = examples, examples[:0]
        if self.validation:
            train, held_out = split_examples(
                examples, key=lambda one: folded(one.text), group=lambda one: one.label, validation=self.validation,
                seed=SPLIT_SEED,
            )  # fmt: skip
        if self.class_weight not in (None, "balanced"):
            raise ValueError(f"class_weight is None or 'balanced'; got {self.class_weight!r}")
        start = None if self.start is None else begun_from(Path(self.start), model="bert", device="cpu")
        heads: dict[str, Any] = {"outputs": ("classes",), "labels": labels}
        if self.dropout is not None or start is None:
            heads["dropout"] = CLASSIFY_SIZES["dropout"] if self.dropout is None else self.dropout
        if start is None:
            tokenizer = WordPieceTokenizer.train(
                "\n".join(one.text for one in train), vocabulary=self.vocabulary, lower=True
            )
            config = bert.Config(
                vocabulary=tokenizer.size, context=self.context, layers=self.layers, heads=self.heads,
                width=self.width, hidden=4 * self.width, **heads,
            )  # fmt: skip
        else:
            tokenizer = start.tokenizer
            config = bert.Config(**{**start.config.as_dict(), **heads})
        return Classify(
            config=config, tokenizer=tokenizer, data=(), text="text", label="label", validation=self.validation,
            read=Labelled("texts", train, held_out, "", labels=[str(place) for place in range(labels)]),
            balanced=self.class_weight == "balanced", start=start, tuning=self._tuning(),
            smoothing=self.label_smoothing,
        )  # fmt: skip

    def _tuning(self) -> dict[str, Any]:
        """What of the model is trained, as refllm.finetune.by_name takes it."""
        options: dict[str, dict[str, Any]] = {
            "upper": {"layers": self.upper},
            "low-rank": {"rank": self.rank, "alpha": self.alpha},
        }
        return {"tune": self.tune, **options.get(self.tune, {})}

    def _rate(self) -> float:
        """The given one, or the one that is usual for what is trained."""
        usual = rates(FIT_SETTINGS["lr"])
        return usual["scratch" if self.start is None else self.tune] if self.lr is None else self.lr

    def _hold(self, classes: Any, config: Any, tokenizer: Any, parameters: Tree, steps: int) -> None:
        self.classes_, self.n_iter_ = np.asarray(classes), steps
        self.config_, self.tokenizer_ = config, tokenizer
        self.parameters_ = map_leaves(np.array, parameters)  # copies: the trainer's memory is shared with its workers

    def _require_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise not_fitted_error()(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with texts and labels before "
                "using this estimator."
            )


def _parameter_names(kind: type) -> list[str]:
    return sorted(inspect.signature(kind).parameters)
