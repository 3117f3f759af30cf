"""report.html: how a training went, for people. It is made from what the run keeps anyway, and nothing depends on it.

It shows the loss, the measures of the held-out part, the learning rate, the norm of the gradient, the throughput, what
the model wrote on the way, and every setting.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from refllm.chart import Curve, bar_chart, line_chart, short
from refllm.page import code, escaped, page, replace_page, table

REPORT = "report.html"
_LINES = 50  # reports that the table lists
_MOST_BYTES = 1 << 24  # of a metrics.jsonl that is read

_NAMES = {
    "train_loss": "training loss", "val_loss": "held-out loss", "val_bpc": "bits per character",
    "val_bpt": "bits per token", "tokens_per_second": "tokens per second", "lr": "learning rate",
    "norm": "gradient norm", "val_examples": "held-out examples read", "val_of": "held-out examples in all",
}  # fmt: skip
_NO_CHART = {"step", "seconds", "train_loss", "val_loss", "lr", "norm", "tokens_per_second", "val_examples", "val_of"}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The reports in a metrics.jsonl; what is no report is left out."""
    if not path.is_file():
        return []
    with open(path, "rb") as file:
        text = file.read(_MOST_BYTES).decode("utf-8", "replace")
    return [line for line in map(_line, text.splitlines()) if line is not None]


def _line(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and _number(line.get("step")) is not None else None


def _number(value: Any) -> float | None:
    """A number that can be drawn, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def write_report(
    directory: Path,
    description: dict[str, Any],
    lines: list[dict[str, Any]],
    *,
    state: str,
    samples: list[dict[str, Any]],
    summary: dict[str, Any] | None = None,
) -> None:
    """Writes the page into the directory of a run. OSError or UserError where that cannot be."""
    replace_page(directory / REPORT, training_page(directory.name, description, lines, state, samples, summary))


def training_page(
    name: str,
    description: dict[str, Any],
    lines: list[dict[str, Any]],
    state: str,
    samples: list[dict[str, Any]],
    summary: dict[str, Any] | None = None,
) -> str:
    """The page of a run: `state` says how far it is, `samples` have a step and a text."""
    model = description.get("model", "model")
    parts = [f"<p>{escaped(state)}</p>"]
    charts = [chart for chart in _charts(lines) if chart]
    if charts:
        parts.append(f'<h2>How it went</h2><div class="charts">{"".join(charts)}</div>')
    if lines:
        parts += ["<details><summary>The numbers of the reports</summary>", _numbers(lines), "</details>"]
    if summary is not None:
        parts += _result(summary)
    parts += _samples(samples)
    parts += _settings(description)
    return page(f"{model}, {name}", parts)


def _charts(lines: list[dict[str, Any]]) -> Iterator[str]:
    def curve(key: str, name: str | None = None) -> Curve:
        points = [(line["step"], y) for line in lines if (y := _number(line.get(key))) is not None]
        return Curve(name or _named(key), points)

    losses = [curve("train_loss"), curve("val_loss")]
    yield line_chart("Loss (nats)", [one for one in losses if one.points], x="steps")
    others = dict.fromkeys(key for line in lines for key in line if key not in _NO_CHART)
    for key in [*list(others)[:6], "lr", "norm", "tokens_per_second"]:
        name = _named(key)
        yield line_chart(name[:1].upper() + name[1:], [curve(key)], x="steps")


def _named(key: str) -> str:
    if key in _NAMES:
        return _NAMES[key]
    return f"held-out {key.removeprefix('val_').replace('_', ' ')}" if key.startswith("val_") else key.replace("_", " ")


def _shown(value: Any) -> str:
    number = _number(value)
    if number is not None:
        return short(number)
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(_shown(each) for each in value) or "none"
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _numbers(lines: list[dict[str, Any]]) -> str:
    keys = list(dict.fromkeys(key for line in lines for key in line if key not in ("val_examples", "val_of")))
    step = math.ceil(len(lines) / _LINES)
    kept = lines[(len(lines) - 1) % step :: step]
    rows = [[escaped(_shown(line.get(key, ""))) for key in keys] for line in kept]
    return table([_named(key) for key in keys], rows, about="the reports", numbers=range(len(keys)))


def _result(summary: dict[str, Any]) -> Iterator[str]:
    yield "<h2>Result</h2>"
    bits = next((key for key in ("val_bpc", "val_bpt") if _number(summary.get(key)) is not None), None)
    baselines = summary.get("baselines")
    if bits and isinstance(baselines, dict):
        bars = [(str(name), value) for name, x in baselines.items() if (value := _number(x)) is not None]
        own = _number(summary[bits])
        yield bar_chart(f"{_named(bits).capitalize()} of the held-out text, lower is better",
                        [*bars, ("this model", own or 0.0)])  # fmt: skip
        summary = {key: value for key, value in summary.items() if key != "baselines"}
    yield _table_of(summary, "the result")


def _samples(samples: list[dict[str, Any]]) -> Iterator[str]:
    if samples:
        yield "<h2>What it wrote</h2>"
    for number, sample in enumerate(reversed(samples)):
        opened = " open" if number == 0 else ""
        yield f"<details{opened}><summary>After {short(sample['step'])} steps</summary>"
        yield f"{code(sample['text'], about='what it wrote', wrapped=True)}</details>"


def _settings(description: dict[str, Any]) -> Iterator[str]:
    yield "<h2>Settings</h2>"
    for key, title in (("config", "Model"), ("settings", "Training"), ("plan", "Length")):
        if isinstance(description.get(key), dict):
            yield f"<h3>{title}</h3>{_table_of(description[key], title.lower())}"
    tokenizer = description.get("tokenizer")
    kind = tokenizer.get("kind") if isinstance(tokenizer, dict) else None
    rest = {
        "task": description.get("task"), "tokenizer": kind, "data": description.get("data") or "the Python reference",
        "version": description.get("version"),
    }  # fmt: skip
    yield f"<h3>Data</h3>{_table_of({key: value for key, value in rest.items() if value}, 'data')}"


def _table_of(values: dict[str, Any], about: str) -> str:
    rows = [[escaped(_named(str(key))), *_cell(value)] for key, value in values.items()]
    return table(["name", "value"], rows, about=about)


def _cell(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [escaped(", ".join(f"{name} {_shown(each)}" for name, each in value.items()) or "none")]
    return [escaped(_shown(value))]
