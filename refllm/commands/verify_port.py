"""refllm verify --model DIR: is a port of that published model right, and if not, where is it wrong and by what
mistake?"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from refllm.backend import Array
from refllm.errors import UserError
from refllm.invocation import command
from refllm.parameters import Tree, from_names
from refllm.pretrained.folder import Folder, open_folder, tokenizer_in
from refllm.tokenizers import Tokenizer, begun
from refllm.verify import external, pages, runner, served
from refllm.verify.case import FaultError, UnsupportedError
from refllm.verify.plugging import Plug
from refllm.verify.ports import digits
from refllm.verify.ports import report as ports_report
from refllm.verify.ports.chosen import Input, inputs
from refllm.verify.ports.file_names import names_in_files
from refllm.verify.ports.found import NOTHING_SOUGHT
from refllm.verify.ports.judged import Judged, judged
from refllm.verify.ports.port import IsolatedPort, case_of
from refllm.verify.ports.program import Program, program
from refllm.verify.ports.report import PortReport
from refllm.verify.ports.search import SECONDS, searched
from refllm.verify.ports.truth import truth
from refllm.verify.report import Report

NOT_FOR_PORTS = ("lib", "itself", "mutants", "header", "kit", "html", "level", "only", "convention", "plan")
SOUGHT_IN = {"float64": "float32"}  # in which the text with a mistake in it is evaluated
DTYPES = ("float32", "float64", "bfloat16", "float16")


def run(options: argparse.Namespace) -> int:
    _require_sensible(options)
    folder = open_folder(Path(options.model))
    steps = program(folder.architecture.model, folder.config, head=folder.has_head)
    tried = inputs(steps, _text_ids(folder, steps, options.text))
    if options.requests:
        return _write_requests(Path(options.requests), tried, options)
    with _implementation(options, folder) as port:
        answers = _answers(port, tried, options.dtype)
        parameters = from_names(folder.shapes, folder.leaves())
        done = _judged(port.name, folder, steps, parameters, tried, answers, options)
    if not done.ran:
        raise UserError(f"no input was answered, so nothing is verified: {next(iter(done.skipped.values()))}")
    if options.json:
        print(json.dumps(ports_report.as_data(done), allow_nan=False, indent=1))
    else:
        print(ports_report.as_text(done), end="")
    if options.junit:
        pages.write_junit(Path(options.junit), _as_report(done, tried, options))
    return 0 if done.right else 1


def _require_sensible(options: argparse.Namespace) -> None:
    """UserError unless exactly one port is named, and nothing that has no meaning for one."""
    files = [*options.adapter, *([options.port] if options.port else [])]
    asked = {
        "--adapter": bool(files), "--serve": bool(options.serve), "--responses": bool(options.responses),
        "--cmd": bool(options.cmd), "--requests": bool(options.requests),
    }  # fmt: skip
    ways = [flag for flag, given in asked.items() if given]
    if len(ways) > 1:
        raise UserError(
            f"{' and '.join(ways)} exclude each other: one port is verified at a time; leave all but one out"
        )
    if len(files) > 1:
        raise UserError(f"one port is verified at a time; got {', '.join(map(str, files))}")
    if not ways:
        raise UserError(
            f"say which port of {options.model}: --adapter PORT.py, --serve COMMAND, --cmd COMMAND or --responses DIR; "
            "--requests DIR writes what it is asked"
        )
    for name in NOT_FOR_PORTS:
        if getattr(options, name):
            flag = {"itself": "self"}.get(name, name)
            raise UserError(f"--{flag} is not for a port of a model (--model); leave it out")
    if options.dtype not in DTYPES:
        raise UserError(f"a port computes in {', '.join(DTYPES)}; got --dtype {options.dtype}")


def _text_ids(folder: Folder, steps: Program, text: str | None) -> Array | None:
    if text is None:
        return None
    ids = tokens_of(tokenizer_in(folder.directory, size=folder.config.vocabulary), text, steps)
    if not len(ids):
        raise UserError("--text has no token; give a text")
    return ids


def tokens_of(tokenizer: Tokenizer, text: str, steps: Program) -> Array:
    """The ids of a text: for a model that reads both sides with what its tokenizer puts around it, else before it."""
    marked = getattr(tokenizer, "marked", None)
    return marked(text) if marked is not None and steps.reads_both_sides else begun(tokenizer, text)


def shown(given: Input) -> str:
    return f"{given.tokens} token{'' if given.tokens == 1 else 's'}"


@contextlib.contextmanager
def _implementation(options: argparse.Namespace, folder: Folder) -> Iterator[Any]:
    files = [*options.adapter, *([options.port] if options.port else [])]
    if files:
        plug = Plug(options.arrays, None if options.device == "cpu" else options.device, None)
        with IsolatedPort(Path(files[0]), options.timeout, folder.directory, plug) as port:
            yield port
    elif options.serve:
        with served.Served(options.serve, {}, options.timeout, alone=True) as found:
            yield found
    elif options.cmd:
        yield external.Command(options.cmd, {}, options.timeout, alone=True)
    else:
        yield external.Responses(Path(options.responses), {})


Answers = dict[str, tuple[str, Any]]  # by input: "answer" and it, "fault" or "skip" and the reason


def _answers(port: runner.Implementation, tried: list[Input], dtype: str) -> Answers:
    found: Answers = {}
    for given in tried:
        try:
            found[given.name] = ("answer", port.respond(case_of(given), dtype))
        except UnsupportedError as error:
            found[given.name] = ("skip", str(error))
        except FaultError as error:
            found[given.name] = ("fault", str(error))
    return found


def _judged(
    name: str,
    folder: Folder,
    steps: Program,
    p: Tree,
    tried: list[Input],
    answers: Answers,
    options: argparse.Namespace,
) -> PortReport:
    answered = [(given, answers[given.name][1]) for given in tried if answers[given.name][0] == "answer"]

    @cache
    def held_in(dtype: str) -> list[Judged]:
        return [judged(steps, truth(steps, p, given, dtype), a.outputs, a.taps) for given, a in answered]

    held = held_in(options.dtype)
    coarser = digits.lost(held, options.dtype, held_in)
    seconds = SECONDS if options.search is None else options.search
    found = NOTHING_SOUGHT
    if not coarser:
        found = searched(steps, p, unused_rows(folder), held_in(SOUGHT_IN.get(options.dtype, options.dtype)), seconds)
    by_kind = {k: {n: a for n, (kind, a) in answers.items() if kind == k} for k in ("fault", "skip")}
    return PortReport(
        name, str(folder.directory), str(folder.fields.values["model_type"]), steps, options.dtype, held,
        by_kind["fault"], by_kind["skip"], found, names_in_files(folder), coarser=coarser,
    )  # fmt: skip


def unused_rows(folder: Folder) -> dict[str, Array]:
    """The tables of which a port may read rows that ours do not have, by the path of our parameter."""
    return {entry.path: folder.tensor(entry.names[0]).read() for entry in folder.entries if entry.skipped}


def _write_requests(directory: Path, tried: list[Input], options: argparse.Namespace) -> int:
    if directory.exists() and any(directory.iterdir()):
        raise UserError(f"--requests {directory}: is not empty; choose another directory")
    for given in tried:
        external.write_request(directory / given.name, case_of(given), options.dtype)
    print(
        f"{len(tried)} requests in {directory}. Write response.json or response.safetensors beside each, with the "
        f"output logits and any taps, then:\n  {command('verify', '--model', options.model, '--responses', directory)}"
    )
    return 0


def _as_report(done: PortReport, tried: list[Input], options: argparse.Namespace) -> Report:
    found = ports_report.results(done, tried)
    return Report(done.port, f"--model {options.model}", options.dtype, 1.0, "", found)
