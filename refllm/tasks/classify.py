"""What a text is: BERT with a head for the labels of some examples, from scratch or from a pre-trained run. (CLS)"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from refllm.backend import Array
from refllm.data.batching import evenly
from refllm.data.classification import MARKS, ClassBatches, balanced_weights, by_length, marked_texts
from refllm.data.examples import Example, folded, labels_of, read_labelled, split_examples
from refllm.data.part import Examples, Part, part_of
from refllm.errors import UserError
from refllm.finetune import Tuning, by_name
from refllm.metrics import accuracy, confusion_matrix, macro_scores
from refllm.models import bert
from refllm.objectives.classification import Classification
from refllm.parameters import Tree
from refllm.state_file import made_of
from refllm.tasks import part_told
from refllm.tasks.labels import label_log_probabilities, most_probable
from refllm.tasks.start import Start, restored, tuning_of
from refllm.tokenizers import load as load_tokenizer
from refllm.tokenizers import require_same_vocabulary
from refllm.train import Objective
from refllm.workers import Workers

SPLIT_SEED = 0  # which texts are held out depends on the data alone: runs with other seeds compare


@dataclass(frozen=True)
class Labelled(Examples[Example]):
    """Examples to learn from and to hold out, and their labels, sorted."""

    labels: list[str] = field(default_factory=list)

    def read(self, part: Part) -> Labelled:
        """The part of them that is read, and the first example to learn from of each label that has none in it."""
        read = super().read(part)
        first = {str(one.label): one for one in reversed(self.train)}
        missing = first.keys() - {str(one.label) for one in read.train}
        return replace(read, train=[*read.train, *(first[label] for label in sorted(missing))])


def read_data(data: Sequence[str], *, text: str, label: str, validation: float) -> Labelled:
    """The examples of files and folders, split so that texts that are the same but for case and space stay together.

    Raises: UserError for what refllm/data/examples.py refuses, and for data with one label only.
    """
    examples = read_labelled(data, text=text, label=label, needs_label=True)
    labels = labels_of(examples)
    train, held_out = split_examples(
        examples, key=lambda one: folded(one.text), group=lambda one: one.label, validation=validation, seed=SPLIT_SEED
    )
    digest = hashlib.sha256()
    for one in examples:
        digest.update(f"{len(one.text)} {one.text} {one.label}\n".encode())
    name = str(data[0]) + (f" and {len(data) - 1} more" if len(data) > 1 else "")
    return Labelled(name, train, held_out, digest.hexdigest(), labels=labels)


def read_again(description: dict[str, Any]) -> Labelled:
    """The examples of a run, or the part of them that it read.

    Raises: UserError if they are others, and as `read_data`.
    """
    read = read_data(description["data"], **description["columns"])
    if read.digest != description["examples_sha256"]:
        raise UserError(f"{read.name} does not hold the examples that the run began with; resume with the same")
    return read.read(part_of(description))


class Classify:
    """BERT with the head "classes", or the part of it that `tuning` names, on labelled texts.

    `data`, `text`, `label` and `validation` say where `read` came from, so that a run can be gone on with. `tuning` are
    the options of refllm.finetune.by_name. With `balanced` every label weighs the same in the loss. `smoothing` is that
    of the labels, in training alone.

    Raises:  UserError if the tokenizer is not the model's, or the labels are not as many; for a smoothing that is no
             share.
    """

    def __init__(
        self,
        *,
        config: bert.Config,
        tokenizer: Any,
        read: Labelled,
        data: Sequence[str],
        text: str,
        label: str,
        validation: float,
        balanced: bool,
        start: Start | None,
        tuning: dict[str, Any],
        smoothing: float = 0.0,
    ) -> None:
        require_same_vocabulary(tokenizer, config.vocabulary)
        if config.labels != len(read.labels):
            raise UserError(f"the data has {len(read.labels)} labels, the model {config.labels}; give the same data")
        self.config, self.tokenizer, self.start = config, tokenizer, start
        self.name, self.labels = read.name, read.labels
        self.data = [str(Path(d).resolve()) for d in data]
        self.columns = {"text": text, "label": label, "validation": validation}
        self.balanced, self.smoothing = balanced, smoothing
        begin = None if start is None or start.weights is None else _without_labels(start.weights)
        self.tuning: Tuning = by_name(**tuning, model=bert, config=config, parameters=begin)
        self.objective: Objective = self.tuning.wrap(Classification(bert, config, smoothing))
        self._learn_from(read)

    def learn_too(self, examples: Sequence[Example]) -> int:
        """Learns from these as well, but for copies of a text that it has already; how many they are."""
        known = {folded(one.text) for one in (*self.read.train, *self.read.validation)}
        new = {folded(one.text): one for one in examples if folded(one.text) not in known}
        self._learn_from(replace(self.read, train=[*self.read.train, *new.values()]))
        return len(new)

    def _learn_from(self, read: Labelled) -> None:
        self.read = read
        train_labels = [str(one.label) for one in read.train]
        self.counts = Counter(train_labels)
        self.weights = balanced_weights(train_labels, of=self.labels) if self.balanced else None
        self.texts, cut = self._marked(read.train)
        self.marked_held_out, cut_held_out = self._marked(read.validation)
        self.cut = cut + cut_held_out

    def _marked(self, examples: Sequence[Example]) -> Any:
        return marked_texts([one.text for one in examples], tokenizer=self.tokenizer, context=self.config.context)

    @property
    def model(self) -> Any:
        return self.tuning.model

    def full(self, trained: Tree) -> Tree:
        """The parameters of the whole classifier, of those that are trained and those that are not."""
        return self.tuning.full(trained)

    def introduced(self) -> str:
        line = (
            f"{self.name}: {len(self.read.train):,} texts to learn from, {len(self.read.validation):,} held out, "
            f"{len(self.labels)} labels{self.read.told()}"
        )
        if self.cut:
            line += (
                f"\n           (texts longer than the context of {self.config.context} tokens, cut off there: "
                f"{self.cut:,}, the first in {self._first_cut()})"
            )
        return line

    def _first_cut(self) -> str:
        """Where the first text stands that is longer than the context."""
        room = self.config.context - MARKS
        examples = [*self.read.train, *self.read.validation]
        return next(one.where for one in examples if len(self.tokenizer.encode(one.text)) > room)

    def describe(self) -> dict[str, Any]:
        return {
            "task": "classify", "model": "bert", "config": self.config.as_dict(), "tokenizer": self.tokenizer.to_json(),
            "labels": self.labels, "label_counts": dict(sorted(self.counts.items())), "data": self.data,
            "columns": self.columns, "examples_sha256": self.read.digest, **self.read.described(),
            "balanced": self.balanced, "smoothing": self.smoothing,
            "from": None if self.start is None else self.start.as_dict(), "tuning": self.tuning.options,
        }  # fmt: skip

    def feed(self, *, batch: int, order: Any, state: dict[str, Any] | None) -> ClassBatches:
        return ClassBatches.of(
            self.texts, [self.labels.index(str(one.label)) for one in self.read.train], weights=self.weights,
            special=self.tokenizer.special, batch=batch, order=order, state=state,
        )  # fmt: skip

    def tokens_a_batch(self, batch: int) -> int:
        return round(batch * sum(len(ids) for ids, _ in self.texts) / len(self.texts))

    @property
    def examples_held_out(self) -> int:
        return len(self.read.validation)

    def validate(self, p: Tree, *, device: str, workers: Workers, most: int | None = None) -> dict[str, float]:
        """The loss, accuracy and macro F1 on the texts held out; `val_loss` weighs the labels as training does, and is
        without smoothing. The best report has the fewest wrong labels (by weight), of equally many the lower loss: a
        classifier still gets better at labels when its loss rises, since it grows too sure of the wrong ones."""
        chosen = evenly(len(self.read.validation), most).tolist()
        pieces = by_length([self.marked_held_out[i] for i in chosen], pad=self.tokenizer.special.pad)
        rows = label_log_probabilities(self.full(p), pieces, config=self.config, device=device, workers=workers)
        wanted = [str(self.read.validation[i].label) for i in chosen]
        given = [self.labels[most_probable(row)] for row in rows]
        places = [self.labels.index(label) for label in wanted]
        weights = [1.0 if self.weights is None else self.weights[place] for place in places]
        nll = math.fsum(-w * row[place] for w, row, place in zip(weights, rows, places, strict=True))
        loss = nll / math.fsum(weights)
        wrong = math.fsum(w for w, a, b in zip(weights, wanted, given, strict=True) if a != b)
        return {
            "val_loss": loss,
            "criterion": wrong + loss / (1 + loss),
            "accuracy": accuracy(wanted, given),
            "macro_f1": macro_scores(confusion_matrix(wanted, given, self.labels)).f1,
        }

    def told(self, measured: dict[str, float]) -> str:
        kind = " without smoothing" if self.smoothing else ""
        return (
            f"held out{part_told(measured)}: "
            f"loss {measured['val_loss']:.3f}{kind}, {100 * measured['accuracy']:.1f} % right, "
            f"macro F1 {measured['macro_f1']:.3f}"
        )


def load(description: dict[str, Any]) -> Classify:
    """The task again, from the files and, if only a part is trained, the run that it began from."""
    return Classify(
        config=made_of(bert.Config, description["config"]), tokenizer=load_tokenizer(description["tokenizer"]),
        read=read_again(description), data=description["data"], **description["columns"],
        balanced=description["balanced"], start=restored(description), tuning=tuning_of(description),
        smoothing=description.get("smoothing", 0.0),
    )  # fmt: skip


def _without_labels(weights: dict[str, Array]) -> dict[str, Array]:
    """All but a head for labels, which were those of other examples."""
    return {path: x for path, x in weights.items() if not path.startswith("classes.")}
