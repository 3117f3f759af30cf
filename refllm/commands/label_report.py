"""What is shown of a classifier: its scores beside the baselines', label by label, and what it takes for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from refllm.cells import padded, widest
from refllm.data.examples import Example
from refllm.extras import how_to_install
from refllm.metrics import accuracy, confusion_matrix, label_scores, macro_scores, micro_scores
from refllm.tasks.baselines import has_naive_bayes, majority, naive_bayes

WIDTH = 80  # columns that a confusion matrix may take


def baseline_labels(
    counts: Mapping[str, int], train: Sequence[Example] | None, texts: Sequence[str]
) -> tuple[dict[str, list[str]], str]:
    """What the baselines answer, and what there is to say about one that is missing."""
    guesses = {"majority": majority(counts, len(texts))}
    if train is None:
        return guesses, "(no Naive Bayes: the texts that the run learnt from are no longer where they were)"
    if not has_naive_bayes():
        return guesses, f"(no Naive Bayes: scikit-learn is not installed; {how_to_install('eval')})"
    answered = naive_bayes([one.text for one in train], [str(one.label) for one in train], texts)
    if answered is None:
        return guesses, "(no Naive Bayes: the training texts hold no word)"
    return {**guesses, "naive_bayes": answered}, ""


def print_comparison(
    right: float,
    f1: float,
    wanted: Sequence[str],
    guesses: Mapping[str, Sequence[str]],
    labels: Sequence[str],
    members: Sequence[tuple[str, Sequence[str]]] = (),
) -> None:
    """The scores of a model beside those of what the baselines answer, and the members by name where it is several."""
    rows = [("the ensemble" if members else "this model", right, f1)]
    titles = {"naive_bayes": "Naive Bayes", "majority": "most frequent label"}
    for name, given in (*members, *((titles[name], given) for name, given in guesses.items())):
        rows.append((name, accuracy(wanted, given), macro_scores(confusion_matrix(wanted, given, labels)).f1))
    width = max(20, 1 + widest(name for name, _, _ in rows))
    print(f"    {'':<{width}}accuracy  macro F1")
    for name, share, score in sorted(rows, key=lambda row: -row[1]):
        print(f"    {padded(name, width)}{100 * share:6.1f} %{score:10.3f}")


def shown(label: str) -> str:
    """A label as it stands in a table: what would break the line, such as a line break, is escaped."""
    return label if label.isprintable() else repr(label)[1:-1]


def label_table(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[str]:
    """Precision, recall and F1 of each label, and their averages."""
    names = [*map(shown, labels)]
    width = max(13, widest(names))
    named = [*zip(names, label_scores(confusion), strict=True), ("micro average", micro_scores(confusion))]
    named.append(("macro average", macro_scores(confusion)))
    lines = [f"    {padded(name, width)}{s.precision:11.3f}{s.recall:8.3f}{s.f1:8.3f}{s.count:8,}" for name, s in named]
    head = f"    {'':<{width}}{'precision':>11}{'recall':>8}{'F1':>8}{'texts':>8}"
    return ["", head, *lines]


def confusion_table(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[str]:
    """The confusion matrix, its columns numbered like its rows; where it is too wide, its most frequent mistakes."""
    cell = max(len(str(len(labels))), *(len(str(n)) for row in confusion for n in row)) + 2
    labels = [*map(shown, labels)]
    name = widest(labels)
    number = len(str(len(labels)))
    lead = number + name + 6
    if lead + cell * len(labels) <= WIDTH:
        head = " " * lead + "".join(f"{i:>{cell}}" for i in range(1, len(labels) + 1))
        lines = [
            f"    {i:>{number}} {padded(label, name)} " + "".join(f"{n if n else '.':>{cell}}" for n in row)
            for i, (label, row) in enumerate(zip(labels, confusion, strict=True), start=1)
        ]
        return ["", "a row for each true label, a column for each given one:", "", head, *lines]
    wrong = [(n, a, b) for a, row in zip(labels, confusion, strict=True) for b, n in zip(labels, row, strict=True)]
    wrong = sorted((one for one in wrong if one[1] != one[2] and one[0]), key=lambda one: -one[0])[:20]
    return ["", "the most frequent mistakes:", "", *(f"    {n:>6}  {a} was called {b}" for n, a, b in wrong)]


def as_json(
    wanted: Sequence[str],
    given: Sequence[str],
    labels: Sequence[str],
    guesses: Mapping[str, Sequence[str]],
    members: Sequence[tuple[str, Sequence[str]]],
) -> dict[str, Any]:
    confusion = confusion_matrix(wanted, given, labels)
    alone = [(name, accuracy(wanted, one), confusion_matrix(wanted, one, labels)) for name, one in members]
    others = {name: confusion_matrix(wanted, guess, labels) for name, guess in guesses.items()}
    return {
        "examples": len(wanted),
        "accuracy": accuracy(wanted, given),
        "macro_f1": macro_scores(confusion).f1,
        "baselines": {name: accuracy(wanted, guess) for name, guess in guesses.items()},
        "baselines_macro_f1": {name: macro_scores(matrix).f1 for name, matrix in others.items()},
        "members": [{"run": name, "accuracy": share, "macro_f1": macro_scores(m).f1} for name, share, m in alone],
        "micro": asdict(micro_scores(confusion)),
        "macro": asdict(macro_scores(confusion)),
        "labels": {label: asdict(one) for label, one in zip(labels, label_scores(confusion), strict=True)},
        "confusion": {"labels": list(labels), "counts": confusion},
    }
