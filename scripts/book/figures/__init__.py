"""What is drawn while the book is built: a file a figure, with a function `draw(axes colours)` of its name."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Theme:
    """The colours of a page: ink on paper, and what stands out, in an order that the colour-blind tell apart."""

    ink: str
    paper: str
    faint: str
    series: tuple[str, ...]
    dark: bool


THEMES = {
    "light": Theme("#1a1a1a", "#ffffff", "#767676", ("#0058a3", "#b3450e", "#00735c", "#8f2f7d", "#6b5b00"), False),
    "dark": Theme("#e6e6e6", "#131416", "#9a9a9a", ("#6cb6ff", "#ffa657", "#4fd1a5", "#f09ce0", "#e3c94f"), True),
}


def names() -> list[str]:
    return sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))


def stored(name: str) -> dict[str, Any]:
    """What scripts/book_data.py has written: docs/data/NAME.json."""
    path = Path(__file__).resolve().parents[3] / "docs/data" / f"{name}.json"
    if not path.is_file():
        raise LookupError(f"docs/data/{name}.json is missing: ./scripts/book_data.py {name}")
    return json.loads(path.read_text(encoding="utf-8"))


def draw(name: str, theme: str, path: Path) -> None:
    """Draws a figure into an SVG file. LookupError if there is none of this name."""
    if name not in names():
        raise LookupError(f"there is no figure {name}: {', '.join(names())}")
    import matplotlib

    matplotlib.use("svg")
    colours = THEMES[theme]
    with matplotlib.rc_context(_settings(colours)):
        figure = importlib.import_module(f"book.figures.{name}").drawing(colours)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
        matplotlib.pyplot.close(figure)


def _settings(colours: Theme) -> dict[str, Any]:
    from cycler import cycler

    ink = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), colours.ink)
    return ink | {
        "svg.fonttype": "none", "svg.hashsalt": "refllm", "font.family": "sans-serif", "font.size": 11,
        "axes.edgecolor": colours.faint, "grid.color": colours.faint, "grid.alpha": 0.35,
        "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
        "axes.prop_cycle": cycler(color=colours.series), "figure.constrained_layout.use": True,
        "lines.linewidth": 1.8,
    }  # fmt: skip
