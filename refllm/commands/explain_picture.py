"""An explanation as a picture by matplotlib."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from refllm.commands.fonts import fonts_for
from refllm.errors import UserError
from refllm.explain.explanation import AttentionMap, Explanation, Grid, LabelScores
from refllm.extras import how_to_install

_FOR, _AGAINST = "#2563eb", "#d97706"


def require_matplotlib() -> None:
    """UserError where it is not installed."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise UserError(f"--picture needs matplotlib, which is not installed: {how_to_install('plot')}")


def draw(found: Explanation, shown: tuple[str, AttentionMap, Grid] | None, path: Path) -> None:
    """A bar a token; without scores all attention maps, or the one that is `shown`."""
    from matplotlib.figure import Figure

    with fonts_for(_texts(found, shown)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # told in one line by now
        figure = Figure(layout="constrained")
        if found.scores is not None:
            _bars(figure, found.tokens, found.scores)
        elif shown is not None:
            _one_map(figure, *shown)
        else:
            _all_maps(figure, found.maps)
        figure.savefig(path, dpi=150)


def _texts(found: Explanation, shown: tuple[str, AttentionMap, Grid] | None) -> list[str]:
    """What stands in the picture beside words of refllm's own."""
    if found.scores is not None:
        return [*found.tokens, found.scores.label]
    return [] if shown is None else [*shown[1].queries, *shown[1].keys]


def _bars(figure: Any, tokens: list[str], s: LabelScores) -> None:
    figure.set_size_inches(7, 1.2 + 0.24 * len(tokens))
    axes = figure.add_subplot()
    places = range(len(tokens))
    axes.barh(places, s.scores, color=[_AGAINST if x < 0 else _FOR for x in s.scores], height=0.7)
    axes.set_yticks(places, labels=tokens, parse_math=False)
    axes.invert_yaxis()
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.locator_params(axis="x", nbins=5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel(
        f"share of the {s.answer} of {s.label}, by {s.method.replace('-', ' ')} from {s.baseline}", parse_math=False
    )


def _one_map(figure: Any, name: str, one: AttentionMap, grid: Grid) -> None:
    figure.set_size_inches(2.5 + 0.2 * len(one.keys), 2 + 0.2 * len(one.queries))
    axes = figure.add_subplot()
    image = axes.imshow(grid, cmap="Blues", vmin=0)
    axes.set_xticks(range(len(one.keys)), labels=one.keys, rotation=90, parse_math=False)
    axes.set_yticks(range(len(one.queries)), labels=one.queries, parse_math=False)
    axes.set_title(name, fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.7)


def _all_maps(figure: Any, maps: list[AttentionMap]) -> None:
    most = max(len(one.heads) for one in maps)
    figure.set_size_inches(1 + 1.5 * most, 0.5 + 1.6 * len(maps))
    axes = figure.subplots(len(maps), most, squeeze=False)
    for row, one in zip(axes, maps, strict=True):
        for number, (place, grid) in enumerate(zip(row, one.heads, strict=True), start=1):
            place.imshow(grid, cmap="Blues", vmin=0)
            place.set_xticks([])
            place.set_yticks([])
            place.set_title(f"layer {one.name}, head {number}", fontsize=8)
