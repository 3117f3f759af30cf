"""A comparison as a page: the table, bars, how each model learnt over time, and the way to the page of each run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from refllm.chart import Curve, bar_chart, line_chart, short
from refllm.page import escaped, page, table
from refllm.reported import METRICS
from refllm.tasks.language import bits_of
from refllm.training_page import REPORT, read_lines


def compare_page(rows: list[dict[str, Any]], *, title: str, about: str, directory: Path, file: Path) -> str:
    """The page of the rows of a comparison, whose runs lie in the directory; `file` is where the page will be."""
    unit = bits_of(rows[0])[1]
    measure = f"bits per {unit}"
    key = "val_bpc" if unit == "character" else "val_bpt"
    curves = [
        Curve(row["name"], [(line["seconds"], line[key]) for line in _measured(directory / row["name"], key)])
        for row in rows
    ]
    charts = [
        bar_chart(f"{measure.capitalize()} of the held-out text, lower is better", [_bar(row) for row in rows]),
        line_chart(
            f"{measure.capitalize()} over the seconds of training", [c for c in curves if c.points], x="seconds"
        ),
    ]
    return page(
        title,
        [
            f"<p>{escaped(about)}</p>",
            table(
                ["model", measure, "perplexity", "parameters", "steps", "seconds"],
                [_cells(row, directory, file) for row in rows], about="the models", numbers=range(1, 6),
            ),
            f'<h2>The same as pictures</h2><div class="charts">{"".join(charts)}</div>',
        ],
    )  # fmt: skip


def _measured(directory: Path, key: str) -> list[dict[str, Any]]:
    lines = read_lines(directory / METRICS)
    return [line for line in lines if all(type(line.get(name)) in (int, float) for name in ("seconds", key))]


def _bar(row: dict[str, Any]) -> tuple[str, float]:
    return row["name"], bits_of(row)[0]


def _cells(row: dict[str, Any], directory: Path, file: Path) -> list[str]:
    name, report = escaped(row["name"]), directory / row["name"] / REPORT
    if report.is_file():
        try:
            way = Path(os.path.relpath(report, file.resolve().parent if file.is_absolute() else file.parent)).as_posix()
        except ValueError:  # on another drive
            way = report.resolve().as_uri()
        name = f'<a href="{escaped(quote(way, safe="/:.", errors="surrogateescape"))}">{name}</a>'
    return [
        name, f"{bits_of(row)[0]:.3f}", f"{row['perplexity']:.2f}", f"{row['parameters']:,}", f"{row['steps']:,}",
        short(round(row["seconds"])),
    ]  # fmt: skip
