"""Several implementations, or several precisions, in one table: operation by operation, how many cases are right.

What was not run has these words and no number: it is neither right nor wrong.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from pathlib import Path

from refllm.invocation import typed
from refllm.page import escaped, page, replace_page, table
from refllm.verify.report import Report, by_operation, counts, sentence
from refllm.verify.runner import Result

WIDTH = 80
NOT_RUN = "not run"
ALL = "all"  # no operation has this name
LEGEND = (
    "n/m: n of the m cases that were run are right; v: in value, where no gradient was given; "
    "!: some are wrong; c: some differ by a convention or a dtype; not run: no such function, or not in this precision."
)
_NAMES, _COLUMN = 26, 12  # characters


def cell(results: Sequence[Result]) -> str:
    """24/25 !"""
    found = counts(results)
    ran = len(results) - found["skipped"]
    if not ran:
        return NOT_RUN
    right = found["passed"] + found["value_only"]
    marks = {"v": found["value_only"], "!": found["failed"], "c": found["dtype"] + found["convention"]}
    shown = "".join(mark for mark, count in marks.items() if count)
    return f"{right}/{ran}{' ' if shown else ''}{shown}"


def rows(reports: Sequence[Report]) -> Iterator[tuple[str, list[str]]]:
    """Each operation of which anything was run, and all together."""
    found = [by_operation(report.results) for report in reports]
    for operation in dict.fromkeys(name for each in found for name in each):
        cells = [cell(each.get(operation, [])) for each in found]
        if any(text != NOT_RUN for text in cells):
            yield operation, cells
    yield ALL, [cell(report.results) for report in reports]


def as_text(reports: Sequence[Report]) -> str:
    """The table for a terminal of 80 columns, in as many parts as it takes."""
    letters = _letters(reports)
    lines = [f"{letter}  {name}" for name, letter in letters.items()]
    heads = [(letters[report.call], report.dtype) for report in reports]
    found, across = list(rows(reports)), (WIDTH - _NAMES) // _COLUMN
    for start in range(0, len(reports), across):
        part = slice(start, start + across)
        lines += ["", " " * _NAMES + "".join(f"{f'{a} {b}':<{_COLUMN}}" for a, b in heads[part]).rstrip()]
        for name, cells in found:
            shown = "".join(f"{text:<{_COLUMN}}" for text in cells[part])
            lines.append(f"{name[: _NAMES - 1]:<{_NAMES}}{shown}".rstrip())
    lines += ["", *_legend()]
    wrong = [f"  $ {_repeat(report)}" for report in reports if report.failures()]
    lines += ["", "What is wrong, and what explains it:", *wrong] if wrong else []
    return "\n".join(lines) + "\n"


def _legend() -> list[str]:
    import textwrap

    return textwrap.wrap(LEGEND, WIDTH)


def _letters(reports: Sequence[Report]) -> dict[str, str]:
    """A letter for each implementation, by the words that name it."""
    names = list(dict.fromkeys(report.call for report in reports))
    marks = [*string.ascii_uppercase, *(a + b for a in string.ascii_uppercase for b in string.ascii_uppercase)]
    return dict(zip(names, marks, strict=False))


def _repeat(report: Report) -> str:
    dtype = "" if report.dtype == "float64" else f" --dtype {report.dtype}"
    return f"{typed()} verify {report.call}{dtype}{report.flags}{report.chosen}"


def write_page(path: Path, reports: Sequence[Report]) -> None:
    """The table as a page, and below it what is wrong with each: one click from a cell that is not right."""
    from refllm.verify import pages

    heads = ["operation", *(f"{report.implementation} {report.dtype}" for report in reports)]
    parts = [f"<p>{escaped(LEGEND)}</p>", table(heads, _marked(reports), about="right cases by operation")]
    for number, report in enumerate(reports):
        head = f"{escaped(report.implementation)} in {escaped(report.dtype)}"
        parts.append(f'<h2 id="{_place(number)}" tabindex="-1">{head}</h2>')
        parts.append(f"<p>{escaped(sentence(report))}</p>")
        parts += pages.failures(report, place=_place(number), level=3)
    replace_page(path, page("Implementations compared", parts, style=pages.STYLE))


def _place(number: int) -> str:
    return f"run-{number}"


def _marked(reports: Sequence[Report]) -> Iterator[list[str]]:
    from refllm.verify import pages

    failing = [report.failures() for report in reports]
    for operation, cells in rows(reports):
        marked = []
        for number, text in enumerate(cells):
            whole = operation == ALL and failing[number]
            place = _place(number) if whole else pages.anchor(operation, _place(number))
            marked.append(_cell(text, f"#{place}" if whole or operation in failing[number] else ""))
        yield [escaped(operation), *marked]


def _cell(text: str, address: str) -> str:
    """A cell as markup; what is not right leads to its failures."""
    if text == NOT_RUN:
        return f'<span class="quiet">{text}</span>'
    shown = f'<b class="bad">{text}</b>' if "!" in text else text
    return f'<a href="{address}">{shown}</a>' if address else shown
