"""refllm verify: is an implementation right, and if not, what is wrong with it?"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from refllm.backend import allow_tf32, device_namespace
from refllm.commands import known_mistakes
from refllm.commands.selection import SIZES, Selection, require_size, selected
from refllm.commands.under_test import call_of, implementation_of, repeated, sized_alone, tried_alone, why_nothing
from refllm.directory import require_place
from refllm.errors import UserError
from refllm.invocation import command
from refllm.page import START, replace, require_replaceable
from refllm.verify import (
    corpus,
    external,
    kits,
    laws,
    library,
    pages,
    report,
    runner,
)
from refllm.verify import declared_plan as plan_of
from refllm.verify.arrays import LIBRARIES
from refllm.verify.case import CARRIERS
from refllm.verify.explaining import explained
from refllm.verify.laws.at_size import held_at_size
from refllm.verify.material import page_on_plugging_in
from refllm.verify.report_data import as_data
from refllm.verify.report_text import as_text
from refllm.verify.signatures import TABLES
from refllm.verify.sized import judge
from refllm.verify.sized.beside import beside_tiny
from refllm.verify.sized.recognised import Recognised
from refllm.workers import keep_freed_memory

DESCRIPTION = f"""Check an implementation of attention, layer norm, a GPT, AdamW ... against the golden files.

examples: refllm verify my_adapter.py --only layer_norm
          refllm verify --cmd './my_impl {{request}} {{response}}' --level 1
          refllm verify --self

Exit status: 0 all that ran is right, 1 something is wrong, 2 could not run. How to plug in: {page_on_plugging_in()}"""

R = TypeVar("R")
LEAST_FOR_LAWS = 5.0  # seconds that laws may take where the run took less; otherwise as many as the run
LESS_MEMORY = "take fewer cases with --level or --only"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("adapter", nargs="*", metavar="ADAPTER.py",
        help="a Python file, or the import name of a module; of several, one table")  # fmt: skip
    add("--cmd", metavar="COMMAND", help="a program, run once a case, with the places {request} and {response}")
    add("--serve", metavar="COMMAND", help="a program that stays alive and answers frames on its standard input")
    add("--lib", metavar="FILE", help="a shared library (.so, .dylib, .dll) with C functions of the header")
    add("--header", metavar="FILE", help="write that C header, and run nothing")
    add("--model", metavar="DIR", help="a published model: what is verified is a port of it (docs/published.md)")
    add(
        "--adapter",
        dest="port",
        metavar="PORT.py",
        help="with --model: the port, a file with model(folder) or logits(ids)",
    )
    add("--text", help="with --model: a text that the port is tried on beside the chosen inputs")
    add("--kit", nargs=2, metavar=("NAME", "DIR"), help=f"copy a starter kit into DIR: {', '.join(kits.NAMES)}")
    add("--responses", metavar="DIR", help="responses written beforehand, as DIR/<case>/response.json or .safetensors")
    add("--requests", metavar="DIR", help="write the requests into DIR, for --responses, and run nothing")
    add("--tensors", action="store_true", help="with --requests of sized cases: their tensors too")
    add("--self", action="store_true", dest="itself", help="refllm's own functions")
    add("--mutants", action="store_true", help="the bank of known mistakes: does every one that the cases reach fail?")
    add(
        "--device",
        metavar="NAME",
        default="cpu",
        help="where --self or --arrays compute (default cpu)",
    )
    plug = parser.add_argument_group("what an adapter takes, if it does not say so itself")
    plug.add_argument("--arrays", choices=LIBRARIES, help="whose arrays its functions take and return")
    plug.add_argument("--signatures", choices=TABLES, help="whose names and parameters its functions have")
    chosen = parser.add_argument_group("which cases, and how")
    chosen.add_argument("--level", action="append", metavar="N", help="only this level, 0 to 7 (may be repeated)")
    chosen.add_argument(
        "--size",
        choices=SIZES,
        default="tiny",
        help="tiny: exact numbers; kernel: operations at the sizes of kernels; all (default tiny)",
    )
    chosen.add_argument("--slow", action="store_true", help="with --size kernel or all: contexts of 8,193 too")
    chosen.add_argument("--only", action="append", metavar="ID", help="only this specification id, operation or case")
    chosen.add_argument(
        "--dtype", type=_dtypes, default=None, metavar="DTYPE",
        help=f"precision: {', '.join(CARRIERS)}; several with commas between (default float64)",
    )  # fmt: skip
    chosen.add_argument("--values", action="store_true", help="values alone, for an implementation without gradients")
    chosen.add_argument("--convention", action="append", metavar="NAME=VALUE", help="what it declares to do otherwise")
    chosen.add_argument(
        "--plan",
        metavar="NAME",
        help="what is stored in which type: eager, fused, narrow, or JSON (default: PLAN, or eager)",
    )
    chosen.add_argument("--cast", action="store_true", help="convert answers of another dtype, and note it")
    chosen.add_argument("--timeout", type=float, default=60, help="seconds that a case may take (default 60)")
    chosen.add_argument(
        "--search", type=float, default=None, metavar="SECONDS",
        help="how many seconds of the processor edits of the specification are tried on what is wrong (default 10, in "
        "at most 20; --model: 60; 0: not at all)",
    )  # fmt: skip
    chosen.add_argument(
        "--no-laws", action="store_false", dest="laws",
        help="no further calls that try laws: a second call, other layouts, poisoned memory, drawn numbers …",
    )  # fmt: skip
    chosen.add_argument("--golden", metavar="DIR", help="golden files (default: those of this version)")
    written = parser.add_argument_group("the report")
    written.add_argument("--json", action="store_true", help="as JSON on stdout")
    written.add_argument("--junit", metavar="FILE", help="also as JUnit XML")
    written.add_argument("--html", metavar="FILE", help="also as a page")


def run(options: argparse.Namespace) -> int:
    _require_settings(options)
    if options.model:
        from refllm.commands import verify_port  # with the models that are published

        options.dtype = options.dtype or "float32"
        return verify_port.run(options)
    if options.port or options.text:
        raise UserError("--adapter and --text are for a port of a model; say --model DIR, or ADAPTER.py alone")
    options.dtype, options.search = options.dtype or "float64", 10.0 if options.search is None else options.search
    ways = ("adapter", "cmd", "serve", "lib", "responses", "requests", "itself", "mutants", "header", "kit")
    if sum(bool(getattr(options, way)) for way in ways) != 1:
        raise UserError(
            "say what to verify: ADAPTER.py, --cmd, --serve, --lib, --responses, --self or --mutants (one of them); "
            "--requests DIR writes the requests, --header FILE a C header, --kit NAME DIR a file to start from"
        )
    _require_plug(options)
    dtypes = options.dtype.split(",")
    if (options.mutants or options.requests) and dtypes[1:]:
        raise UserError("several precisions are for implementations; give one --dtype here")
    require_size(options)
    golden = corpus.load(corpus.folder(options.golden))
    if options.header:
        return _write_header(Path(options.header), golden)
    if options.kit:
        print(kits.copied(options.kit[0], Path(options.kit[1]), golden), end="")
        return 0
    cases = selected(golden, options)
    if options.mutants:
        return known_mistakes.put_to(golden, cases, options)
    if options.requests:
        return _write_requests(Path(options.requests), cases, options)
    runs = [_one_run(options, adapter, dtype) for adapter in options.adapter or [None] for dtype in dtypes]
    return _verify(golden, cases, runs[0]) if len(runs) == 1 else _verify_several(golden, cases, runs)


def _require_settings(options: argparse.Namespace) -> None:
    """UserError for numbers and files that no run can have."""
    if options.search is not None and not 0 <= options.search < math.inf:
        raise UserError(f"--search must be a number of seconds, 0 or more; got {options.search:g}")
    if not options.timeout > 0:
        raise UserError(f"--timeout must be above 0 seconds, got {options.timeout:g}")
    for file, start in ((options.junit, pages.JUNIT_START), (options.html, START)):
        if file:
            require_replaceable(Path(file), start)
            require_place(Path(file), within=Path(file).parent)


def _dtypes(text: str) -> str:
    """One precision, or several with commas between."""
    for name in text.split(","):
        if name not in CARRIERS:
            raise argparse.ArgumentTypeError(f"{name!r:.40} is none of {', '.join(CARRIERS)}")
    return text


def _require_plug(options: argparse.Namespace) -> None:
    """UserError if flags speak of what is not there."""
    for flag in ("arrays", "signatures"):
        if getattr(options, flag) and not options.adapter:
            raise UserError(f"--{flag} is for the functions of a Python module, ADAPTER.py")
    if options.device == "cpu" or options.adapter:
        return
    if not options.itself:
        raise UserError("--device is for --self and for adapters: a command chooses its device by itself")
    if options.device != "cuda":
        raise UserError(f"--self computes on cpu or cuda; got --device {options.device}")
    device_namespace(options.device)
    allow_tf32(False, options.device)


def _one_run(options: argparse.Namespace, adapter: str | None, dtype: str) -> argparse.Namespace:
    """The options of one implementation in one precision."""
    return argparse.Namespace(**{**vars(options), "adapter": adapter, "dtype": dtype})


def _verify(golden: corpus.Corpus, cases: Selection, options: argparse.Namespace) -> int:
    done, interrupted, nothing = _reported(golden, cases, options)
    if options.json:
        print(json.dumps(as_data(done), allow_nan=False, indent=1))
    elif done.ran:
        print(as_text(done), end="")
    if options.junit:
        pages.write_junit(Path(options.junit), done)
    if options.html:
        pages.write_page(Path(options.html), done)
    if interrupted is not None:
        raise interrupted
    if not done.ran:
        raise UserError(f"no case was run, so nothing is verified: {nothing}")
    return 1 if done.failures() else 0


def _verify_several(golden: corpus.Corpus, cases: Selection, runs: list[argparse.Namespace]) -> int:
    """One table of all runs. What could not be run is said at the end, and the others stand."""
    from refllm.verify import comparison

    options, reports, problems = runs[0], list[report.Report](), list[str]()
    interrupted: BaseException | None = None
    for each in runs:
        try:
            done, interrupted, _ = _reported(golden, cases, each)
        except UserError as error:
            problems += [] if str(error) in problems else [str(error)]
            continue
        reports.append(done)
        if interrupted is not None:
            break
    if options.json:
        print(json.dumps({"runs": [as_data(done) for done in reports]}, allow_nan=False, indent=1))
    elif any(done.ran for done in reports):
        print(comparison.as_text(reports), end="")
    if options.junit:
        pages.write_junit(Path(options.junit), *reports)
    if options.html:
        comparison.write_page(Path(options.html), reports)
    if interrupted is not None:
        raise interrupted
    if problems:
        raise UserError("; ".join(problems))
    if not any(done.ran for done in reports):
        raise UserError("no case was run, so nothing is verified; each by itself says why")
    return 1 if any(done.failures() for done in reports) else 0


def _reported(
    golden: corpus.Corpus, cases: Selection, options: argparse.Namespace
) -> tuple[report.Report, BaseException | None, str]:
    """The report of a run, what interrupted it, and where nothing was run the reason."""
    started = time.monotonic()
    if cases.sized:
        keep_freed_memory()  # every step of the text asks for as much again
    with implementation_of(options, golden) as implementation:
        plan = plan_of.chosen(options.plan, implementation, options.dtype)
        running = runner.run(implementation, cases.tiny, options.dtype, golden.C, casts=options.cast)
        results = runner.settled(list(_shown(running, len(cases.tiny))), options.dtype, golden.C)
        results = tried_alone(implementation, results, golden, options)
        tries_laws = options.laws and not isinstance(implementation, external.Responses)  # which cannot be asked again
        if tries_laws:
            seconds = max(LEAST_FOR_LAWS, time.monotonic() - started)
            results = list(laws.held(implementation, results, options.dtype, golden.C, seconds, casts=options.cast))
        watched = Recognised(options.dtype, plan, options.search)
        large = judge.run(
            implementation, cases.sized, options.dtype, plan, casts=options.cast, values=options.values,
            seen=watched.look if options.search else None,
        )  # fmt: skip
        started = time.monotonic()
        large_results = list(_shown(large, len(cases.sized)))
        if tries_laws and large_results:
            seconds = max(LEAST_FOR_LAWS, time.monotonic() - started)
            large_results = list(held_at_size(
                implementation, cases.sized, large_results, options.dtype, plan, seconds, casts=options.cast
            ))  # fmt: skip
        large_results = sized_alone(implementation, large_results, cases.sized, plan, options)
        results, interrupted = _explained(results, options.dtype, golden.C, options.search)
        large_results = watched.explained(large_results)
        if tries_laws and options.search and interrupted is None:
            large_results = beside_tiny(
                implementation, large_results, golden.cases.values(), options.dtype, golden.C,
                watched.left, watched.gives, casts=options.cast, values=options.values, done=results,
            )  # fmt: skip
    results += large_results
    chosen = [f" --{name} {shlex.quote(text)}" for name in ("level", "only") for text in getattr(options, name) or []]
    done = report.Report(
        implementation.name, call_of(options), options.dtype, golden.C, golden.spec_version, results,
        repeated(options), "".join(chosen), options.golden, implementation.conventions,
    )  # fmt: skip
    return done, interrupted, "" if done.ran else why_nothing(implementation, done)


def _shown(results: Iterator[R], total: int) -> Iterable[R]:
    """The results, on a terminal with a bar. Elsewhere none is shown, and its library is not imported."""
    if not sys.stderr.isatty():
        return results
    from tqdm import tqdm

    bar: Iterable[R] = tqdm(results, total=total, unit="case", leave=False, delay=2)
    return bar


def _explained(
    results: list[runner.Result], dtype: str, C: float, seconds: float
) -> tuple[list[runner.Result], BaseException | None]:
    """The results with what explains the wrong ones. Who interrupts the search still gets what was judged before."""
    try:
        return explained(results, dtype, C, seconds), None
    except KeyboardInterrupt as interruption:
        print("refllm: interrupted while explanations were sought; here is what fails, without them", file=sys.stderr)
        return results, interruption


def _write_header(path: Path, golden: corpus.Corpus) -> int:
    require_place(path, within=path.parent)
    text = library.header(library.interfaces(golden.cases.values()).values(), golden.spec_version)
    replace(path, text.encode(), library.HEADER_START)
    print(f"{path}: write the functions that you have, then {command('verify', '--lib', './libmine.so')}")
    return 0


def _write_requests(directory: Path, cases: Selection, options: argparse.Namespace) -> int:
    if directory.exists() and any(directory.iterdir()):
        raise UserError(f"--requests {directory}: is not empty; choose another directory")
    answerable = [case for case in cases.tiny if case.level != 6]
    for case in answerable:
        external.write_request(directory / case.id, case, options.dtype)
    for sized in cases.sized:
        made = sized.case().values_alone() if options.values else sized.case()
        external.write_request(directory / sized.id, made, options.dtype, tensors=options.tensors)
    said = ["--dtype", options.dtype] + (["--size", options.size] if options.size != "tiny" else [])
    print(
        f"{len(answerable) + len(cases.sized)} requests in {directory}. "
        "Write response.json or response.safetensors beside each, then:\n"
        f"  {command('verify', '--responses', directory, *said)}"
    )
    return 0
