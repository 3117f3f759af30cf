"""refllm verify: is an implementation right, and if not, what is wrong with it?"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import functools
import json
import math
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from refllm.backend import allow_tf32, device_namespace
from refllm.commands.selection import SIZES, Selection, require_size, selected
from refllm.directory import require_place
from refllm.errors import UserError
from refllm.invocation import command
from refllm.page import START, replace, require_replaceable
from refllm.verify import (
    adapter,
    again,
    corpus,
    device,
    external,
    isolated,
    kits,
    laws,
    library,
    pages,
    reference,
    report,
    runner,
    served,
)
from refllm.verify import declared_plan as plan_of
from refllm.verify.arrays import LIBRARIES
from refllm.verify.case import CARRIERS, Case
from refllm.verify.explaining import explained
from refllm.verify.laws.at_size import held_at_size
from refllm.verify.material import page_on_plugging_in
from refllm.verify.plugging import Plug
from refllm.verify.report_data import as_data
from refllm.verify.report_text import as_text
from refllm.verify.signatures import TABLES
from refllm.verify.sized import judge
from refllm.verify.sized.cases import SizedCase
from refllm.verify.sized.recognised import Recognised

DESCRIPTION = f"""Check an implementation of attention, layer norm, a GPT, AdamW ... against the golden files.

examples: refllm verify my_adapter.py --only layer_norm
          refllm verify --cmd './my_impl {{request}} {{response}}' --level 1
          refllm verify --self

Exit status: 0 all that ran is right, 1 something is wrong, 2 could not run. How to plug in: {page_on_plugging_in()}"""

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
        "--dtype", type=_dtypes, default="float64", metavar="DTYPE",
        help=f"precision: {', '.join(CARRIERS)}; several with commas between (default float64)",
    )  # fmt: skip
    chosen.add_argument("--values", action="store_true", help="values alone, for an implementation without gradients")
    chosen.add_argument("--convention", action="append", metavar="NAME=VALUE", help="what it declares to do otherwise")
    chosen.add_argument(
        "--plan",
        metavar="NAME",
        help="what is stored in which type: eager, fused, or JSON (default: PLAN, or eager)",
    )
    chosen.add_argument("--cast", action="store_true", help="convert answers of another dtype, and note it")
    chosen.add_argument("--timeout", type=float, default=60, help="seconds that a case may take (default 60)")
    chosen.add_argument(
        "--search", type=float, default=10, metavar="SECONDS",
        help="how long edits of the specification are tried on what is wrong (default 10; 0: not at all)",
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
    if not 0 <= options.search < math.inf:
        raise UserError(f"--search must be a number of seconds, 0 or more; got {options.search:g}")
    if not options.timeout > 0:
        raise UserError(f"--timeout must be above 0 seconds, got {options.timeout:g}")
    for file, start in ((options.junit, pages.JUNIT_START), (options.html, START)):
        if file:
            require_replaceable(Path(file), start)
            require_place(Path(file), within=Path(file).parent)
    require_size(options)
    golden = corpus.load(corpus.folder(options.golden))
    if options.header:
        return _write_header(Path(options.header), golden)
    if options.kit:
        print(kits.copied(options.kit[0], Path(options.kit[1]), golden), end="")
        return 0
    cases = selected(golden, options)
    if options.mutants:
        return _kernels(cases.sized, options) if cases.sized else _mutants(golden, cases.tiny, options)
    if options.requests:
        return _write_requests(Path(options.requests), cases, options)
    runs = [_one_run(options, adapter, dtype) for adapter in options.adapter or [None] for dtype in dtypes]
    return _verify(golden, cases, runs[0]) if len(runs) == 1 else _verify_several(golden, cases, runs)


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


def _conventions(given: list[str] | None, golden: corpus.Corpus) -> dict[str, str]:
    found = {}
    for pair in given or []:
        name, _, value = pair.partition("=")
        _require_known(name, value, f"--convention {pair}", golden)
        found[name] = value
    return found


def _require_known(name: str, value: str, given: str, golden: corpus.Corpus) -> None:
    """UserError if the golden files know no such convention."""
    known: dict[str, set[str]] = {}
    for case in golden.cases.values():
        pairs = [pair for key in case.alternatives for pair in key.split(",")]
        for pair in [*(f"{n}={v}" for n, v in case.conventions.items()), *pairs]:
            known.setdefault(pair.partition("=")[0], set()).add(pair.partition("=")[2])
    if value not in known.get(name, ()):
        listed = "; ".join(f"{n}={' or '.join(sorted(values))}" for n, values in sorted(known.items()))
        raise UserError(f"{given}: the golden files know {listed}")


@contextlib.contextmanager
def _implementation(options: argparse.Namespace, golden: corpus.Corpus) -> Iterator[runner.Implementation]:
    """What is under test; the process of an adapter is gone afterwards."""
    conventions = _conventions(options.convention, golden)
    if options.adapter:
        plug = Plug(options.arrays, None if options.device == "cpu" else options.device, options.signatures)
        with isolated.from_file(Path(options.adapter), options.timeout, plug) as module:
            for name, value in module.conventions.items():
                _require_known(name, value, f'{options.adapter}: CONVENTIONS = {{"{name}": "{value}"}}', golden)
            module.conventions = {**module.conventions, **conventions}
            yield module
    elif options.cmd:
        yield external.Command(options.cmd, conventions, options.timeout, alone=True)
    elif options.serve:
        with served.Served(options.serve, conventions, options.timeout, alone=True) as program:
            yield program
    elif options.lib:
        known = library.interfaces(golden.cases.values())
        with library.Library(Path(options.lib), known, conventions, options.timeout, alone=True) as found:
            yield found
    elif options.responses:
        yield external.Responses(Path(options.responses), conventions)
    else:
        own, name = reference.functions(), "refllm"
        if options.device != "cpu":
            own, name = device.across(own, options.device), f"refllm on {options.device}"
        yield adapter.Functions(name, own, conventions, reference.DTYPES)


def _call(options: argparse.Namespace) -> str:
    """The words of the command line that name what is under test."""
    if options.adapter:
        device = None if options.device == "cpu" else options.device
        said = {"signatures": options.signatures, "arrays": options.arrays, "device": device}
        flags = [f" --{name} {value}" for name, value in said.items() if value]
        return "".join([shlex.quote(options.adapter), *flags])
    for way in ("cmd", "serve", "lib", "responses"):
        if getattr(options, way):
            return f"--{way} {shlex.quote(getattr(options, way))}"
    return "--self" if options.device == "cpu" else f"--self --device {options.device}"


def _repeated(options: argparse.Namespace) -> str:
    """The flags without which a repetition would be another run."""
    words = [f" --{name}" for name in ("values", "cast", "slow") if getattr(options, name)]
    words += [f" --size {options.size}"] if options.size != "tiny" else []
    words += [] if options.laws else [" --no-laws"]
    words += [f" --convention {shlex.quote(pair)}" for pair in options.convention or []]
    words += [f" --plan {shlex.quote(options.plan)}"] if options.plan else []
    words += [f" --golden {shlex.quote(options.golden)}"] if options.golden else []
    return "".join(words + ([f" --timeout {options.timeout:g}"] if options.timeout != 60 else []))


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
    from tqdm import tqdm

    started = time.monotonic()
    with _implementation(options, golden) as implementation:
        plan = plan_of.chosen(options.plan, implementation, options.dtype)
        running = runner.run(implementation, cases.tiny, options.dtype, golden.C, casts=options.cast)
        bar = functools.partial(tqdm, unit="case", leave=False, disable=None, delay=2)
        results = runner.settled(list(bar(running, total=len(cases.tiny))), options.dtype, golden.C)
        results = _tried_alone(implementation, results, golden, options)
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
        large_results = list(bar(large, total=len(cases.sized)))
        if tries_laws and large_results:
            seconds = max(LEAST_FOR_LAWS, time.monotonic() - started)
            large_results = list(held_at_size(
                implementation, cases.sized, large_results, options.dtype, plan, seconds, casts=options.cast
            ))  # fmt: skip
    results, interrupted = _explained(results, options.dtype, golden.C, options.search)
    results += watched.explained(large_results)
    chosen = [f" --{name} {shlex.quote(text)}" for name in ("level", "only") for text in getattr(options, name) or []]
    done = report.Report(
        implementation.name, _call(options), options.dtype, golden.C, golden.spec_version, results,
        _repeated(options), "".join(chosen), options.golden, implementation.conventions,
    )  # fmt: skip
    return done, interrupted, "" if done.ran else _why_nothing(implementation, done)


def _tried_alone(
    implementation: runner.Implementation, results: list[runner.Result], golden: corpus.Corpus, options: Any
) -> list[runner.Result]:
    """Where calls share a process, whether the failures that are shown depend on an earlier call."""
    if not isinstance(implementation, isolated.Isolated | served.Served) or len(results) <= 1:
        return results

    def fresh(left: float) -> isolated.Isolated | served.Served:
        found = implementation.fresh(min(left, options.timeout))
        found.conventions = implementation.conventions
        return found

    return list(again.tried_alone(results, fresh, options.dtype, golden.C, casts=options.cast))


def _why_nothing(implementation: runner.Implementation, done: report.Report) -> str:
    """The reason for most of what was skipped; of a file without operations, what it has instead."""
    if others := Counter(result.reason for result in done.results if not result.absent):
        [(reason, count)] = others.most_common(1)
        return f"all {len(done.results)} were skipped, {count} because {reason}"
    wanted = sorted({result.case.operation for result in done.results})
    there = sorted(getattr(implementation, "operations", ()))
    near = [(name, *difflib.get_close_matches(name, wanted, 1, 0.7)) for name in there]
    alike = [f"{found[0]} may be meant as {found[1]}" for found in near if found[1:]]
    has = f"it has {', '.join(there[:6])}{', …' if there[6:] else ''}" if there else "it has no public function"
    asked = f"of the {len(wanted)} operations that were chosen, such as {wanted[0]}" if wanted[1:] else wanted[0]
    return (
        f"{implementation.name} has no function {asked} ({'; '.join(alike[:3]) or has}); "
        "a function is named as its operation, see golden/README.md"
    )


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


def _mutants(golden: corpus.Corpus, cases: list[Case], options: argparse.Namespace) -> int:
    from refllm.verify import matrix
    from refllm.verify.imitations import Imitations

    every = len(cases) == len(golden.cases)
    table = matrix.measure(cases, options.dtype, golden.C, known=Imitations(), whole=True, every=every)
    if not table.deaths:
        raise UserError("the cases chosen call nothing that a mutant imitates; choose others with --level or --only")
    print(json.dumps(matrix.as_data(table), indent=1) if options.json else matrix.as_text(table), end="")
    if options.json:
        print()
    sys.stdout.flush()
    return 1 if table.survivors else 0


def _kernels(sized: list[SizedCase], options: argparse.Namespace) -> int:
    from refllm.verify.kernels import table

    if options.dtype not in table.DTYPES:
        raise UserError(f"--mutants --size kernel runs in {' or '.join(table.DTYPES)}; got --dtype {options.dtype}")
    deaths = table.measure(sized, options.dtype)
    if not deaths:
        raise UserError(f"no mistake of a kernel is of the cases chosen; there are some of {', '.join(table.KNOWN)}")
    print(json.dumps(table.as_data(deaths), indent=1) if options.json else table.as_text(deaths), end="")
    if options.json:
        print()
    sys.stdout.flush()
    return 1 if table.survivors(deaths) else 0
