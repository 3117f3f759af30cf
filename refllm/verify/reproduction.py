"""How to see a failure again: the command, and for a Python module the call."""

from __future__ import annotations

import shlex

from refllm.invocation import typed
from refllm.verify.explanation import alone
from refllm.verify.report import Report
from refllm.verify.runner import Result


def snippet(report: Report, result: Result) -> list[str]:
    """How to see a failure again: the command, and for a Python module the call."""
    case = result.case
    if report.call.startswith("check("):
        call = f'{report.call[:-1]}, only="{case.id}")'
        return [f">>> {call}"]
    dtype = "" if report.dtype == "float64" else f" --dtype {report.dtype}"
    command = f"$ {typed()} verify {report.call}{dtype}{report.flags}"
    if result.alone:
        chosen = f" --only {result.after} --only {case.id}" if result.after else report.chosen
        return [alone(result.after), f"{command}{chosen}"]
    words = shlex.split(report.call) or [""]
    lines = [f"{command} --only {case.id}"]
    if words[0].startswith("--") or case.operation == "resume" or not (words[0].endswith(".py") or words[1:]):
        return lines
    return [*lines, *_call(report, result, words[0], dict(zip(words[1::2], words[2::2], strict=True)))]


def _call(report: Report, result: Result, path: str, flags: dict[str, str]) -> list[str]:
    """The call in Python, whatever the file is called and wherever it lies."""
    case = result.case
    folder = "None" if report.golden is None else repr(report.golden)
    mine = {name: value for name, value in report.declared.items() if name in case.conventions}
    pulled = result.response is not None and result.response.gradients is not None
    pulled = pulled or f"{case.operation}'s pullback" in result.reason
    said = ", ".join(f"{name.removeprefix('--')}={value!r}" for name, value in flags.items())
    mine_is = [f">>> mine = adapter.from_file({path!r})"]
    if said:
        mine_is = [
            ">>> from refllm.verify.plugging import Plug",
            f">>> mine = adapter.from_file({path!r}, Plug({said}))",
        ]
    sized = case.seed is not None
    back = [f'print(returned[1](*case.pull("{report.dtype}")), case.gradients)'] if pulled else []
    case_of = f'sized.load(corpus.folder({folder}))["{case.id}"].case()'
    case_of = case_of if sized else f'corpus.load(corpus.folder({folder})).cases["{case.id}"]'
    return [
        ">>> from refllm.verify import adapter, corpus",
        *([">>> from refllm.verify.sized import cases as sized"] if sized else []),
        *mine_is,
        f">>> case = {case_of}",
        *([f">>> case = case.under({mine!r})"] if mine else []),
        f'>>> returned = mine.function("{case.operation}", "{report.dtype}")(',
        f'...     *case.arguments("{report.dtype}"), **case.keyword_arguments())',
        *(f">>> {line}" for line in ["print(returned)" if sized else "print(returned, case.outputs)", *back]),
    ]
