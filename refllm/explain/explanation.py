"""An explanation of one text as plain numbers: what is printed, drawn and written as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from refllm.errors import UserError

Grid = list[list[float]]  # (T, S): a row a query, a column a key


@dataclass(frozen=True)
class AttentionMap:
    """The weights of one attention, a grid a head. `name` is the layer, with its stack where there are two."""

    name: str
    queries: list[str]
    keys: list[str]
    heads: list[Grid]

    def mean(self) -> Grid:
        """The mean of the heads."""
        n = len(self.heads)
        return [[sum(cells) / n for cells in zip(*rows, strict=True)] for rows in zip(*self.heads, strict=True)]


@dataclass(frozen=True)
class LabelScores:
    """What each token accounts for in F, the log-probability or the logit of a label.

    `missing` is the error of completeness, value - baseline_value - Σ scores; `steps` is None without a path.
    """

    method: str
    label: str
    answer: str
    baseline: str
    steps: int | None
    scores: list[float]
    value: float
    baseline_value: float
    missing: float


@dataclass(frozen=True)
class Explanation:
    """`probabilities` are those of the labels and `scores` of the tokens, for a classifier."""

    text: str
    tokens: list[str]
    probabilities: dict[str, float] | None
    scores: LabelScores | None
    maps: list[AttentionMap]

    def as_json(self) -> dict[str, Any]:
        """Without what there is not."""
        found: dict[str, Any] = {"text": self.text, "tokens": self.tokens, "probabilities": self.probabilities}
        scores = None if self.scores is None else asdict(self.scores)
        found |= {"attribution": scores, "attention": [asdict(one) for one in self.maps]}
        return {name: value for name, value in found.items() if value is not None}


def chosen_map(maps: Sequence[AttentionMap], *, layer: str | None, head: int | None) -> tuple[str, AttentionMap, Grid]:
    """The grid of a layer (the last, if None is named) and a head (the mean of all, if None), and its name.

    Raises: UserError for a layer or head that the model does not have, and for a model without attention.
    """
    if not maps:
        raise UserError("the model has no attention to show; give the run of a Transformer")
    names = [one.name for one in maps]
    if layer is not None and layer not in names:
        raise UserError(f"there is no layer {layer}; the model has {', '.join(names)}")
    found = maps[-1] if layer is None else maps[names.index(layer)]
    if head is None:
        return f"layer {found.name}, mean of {len(found.heads)} heads", found, found.mean()
    if not 1 <= head <= len(found.heads):
        raise UserError(f"there is no head {head}; the layers have heads 1 to {len(found.heads)}")
    return f"layer {found.name}, head {head}", found, found.heads[head - 1]
