"""refllm verify: is an implementation right, and if not, what is wrong with it?"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from refllm.backend import allow_tf32, device_namespace
from refllm.errors import UserError
from refllm.invocation import command
from refllm.verify import adapter, corpus, device, external, pages, reference, report, runner
from refllm.verify.case import CARRIERS, Case

DESCRIPTION = """Check an implementation of attention, layer norm, a GPT, AdamW ... against the golden files.

examples: refllm verify my_adapter.py --only layer_norm
          refllm verify --cmd './my_impl {request} {response}' --level 1
          refllm verify --self

Exit status: 0 all that ran is right, 1 something is wrong, 2 could not run. How to plug in: docs/conformance.md"""

LESS_MEMORY = "take fewer cases with --level or --only"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("adapter", nargs="?", metavar="ADAPTER.py", help="a Python module with functions named as the operations")
    add("--cmd", metavar="COMMAND", help="a program, run once a case, with the places {request} and {response}")
    add("--responses", metavar="DIR", help="responses written beforehand, as DIR/<case>/response.json or .safetensors")
    add("--requests", metavar="DIR", help="write the requests into DIR, for --responses, and run nothing")
    add("--self", action="store_true", dest="itself", help="refllm's own functions")
    add("--mutants", action="store_true", help="the bank of known mistakes: does every one that the cases reach fail?")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where --self computes (default cpu)")
    chosen = parser.add_argument_group("which cases, and how")
    chosen.add_argument("--level", action="append", metavar="N", help="only this level, 0 to 6 (may be repeated)")
    chosen.add_argument("--only", action="append", metavar="ID", help="only this specification id, operation or case")
    chosen.add_argument("--dtype", choices=tuple(CARRIERS), default="float64", help="precision (default float64)")
    chosen.add_argument("--values", action="store_true", help="values alone, for an implementation without gradients")
    chosen.add_argument("--convention", action="append", metavar="NAME=VALUE", help="what it declares to do otherwise")
    chosen.add_argument("--timeout", type=float, default=60, help="seconds that --cmd may take for a case (default 60)")
    chosen.add_argument("--golden", metavar="DIR", help="golden files (default: those of this version)")
    written = parser.add_argument_group("the report")
    written.add_argument("--json", action="store_true", help="as JSON on stdout")
    written.add_argument("--junit", metavar="FILE", help="also as JUnit XML")
    written.add_argument("--html", metavar="FILE", help="also as a page")


def run(options: argparse.Namespace) -> int:
    ways = ("adapter", "cmd", "responses", "requests", "itself", "mutants")
    if sum(bool(getattr(options, way)) for way in ways) != 1:
        raise UserError(
            "say what to verify: ADAPTER.py, --cmd, --responses, --self or --mutants (one of them); "
            "--requests DIR writes the requests"
        )
    if options.device != "cpu":
        if not options.itself:
            raise UserError("--device is for --self: an adapter or a command chooses its device by itself")
        device_namespace(options.device)
        allow_tf32(False, options.device)
    if not options.timeout > 0:
        raise UserError(f"--timeout must be above 0 seconds, got {options.timeout:g}")
    golden = corpus.load(corpus.folder(options.golden))
    cases = chosen_cases(golden, options.level, options.only)
    if options.values:
        cases = [case.values_alone() for case in cases]
    if options.mutants:
        return _mutants(golden, cases, options)
    if options.requests:
        return _write_requests(Path(options.requests), cases, options.dtype)
    return _verify(golden, cases, options)


def chosen_cases(golden: corpus.Corpus, levels: list[str] | None, only: list[str] | None) -> list[Case]:
    """The cases that the flags choose, in the order of the manifest. UserError if there is none."""
    cases = list(golden.cases.values())
    if levels:
        wanted = {_level(text) for text in levels}
        cases = [case for case in cases if case.level in wanted]
    found = cases if not only else [case for case in cases if any(_is_meant(case, name, cases) for name in only)]
    if not found:
        raise UserError(f"no case is chosen by these flags; `{command('verify', '--self', '--json')}` lists every id")
    return found


def _level(text: str) -> int:
    digits = text.removeprefix("L")
    if digits not in {str(level) for level in report.LEVELS}:
        raise UserError(f"--level {text}: the levels are 0 to {max(report.LEVELS)}")
    return int(digits)


def _is_meant(case: Case, name: str, cases: list[Case]) -> bool:
    """The whole of a specification id, operation or case id; failing that, the beginning of a case id."""
    if any(name in (each.spec, each.operation, each.id) for each in cases):
        return name in (case.spec, case.operation, case.id)
    return case.id.startswith(name)


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
        for pair in [*(f"{n}={v}" for n, v in case.conventions.items()), *case.alternatives]:
            known.setdefault(pair.partition("=")[0], set()).add(pair.partition("=")[2])
    if value not in known.get(name, ()):
        listed = "; ".join(f"{n}={' or '.join(sorted(values))}" for n, values in sorted(known.items()))
        raise UserError(f"{given}: the golden files know {listed}")


def _implementation(options: argparse.Namespace, golden: corpus.Corpus) -> tuple[runner.Implementation, str]:
    """What is under test, and the words of the command line that name it."""
    conventions = _conventions(options.convention, golden)
    if options.adapter:
        module = adapter.from_file(Path(options.adapter))
        for name, value in module.conventions.items():
            _require_known(name, value, f'{options.adapter}: CONVENTIONS = {{"{name}": "{value}"}}', golden)
        module.conventions = {**module.conventions, **conventions}
        return module, options.adapter
    if options.cmd:
        return external.Command(options.cmd, conventions, options.timeout), f"--cmd {shlex.quote(options.cmd)}"
    if options.responses:
        directory = Path(options.responses)
        return external.Responses(directory, conventions), f"--responses {shlex.quote(options.responses)}"
    own = reference.functions()
    if options.device == "cpu":
        return adapter.Functions("refllm", own, conventions, reference.DTYPES), "--self"
    own = device.across(own, options.device)
    return adapter.Functions(f"refllm on {options.device}", own, conventions, reference.DTYPES), (
        f"--self --device {options.device}"
    )


def _verify(golden: corpus.Corpus, cases: list[Case], options: argparse.Namespace) -> int:
    from tqdm import tqdm

    implementation, call = _implementation(options, golden)
    running = runner.run(implementation, cases, options.dtype, golden.C)
    bar = tqdm(running, total=len(cases), unit="case", leave=False, disable=None, delay=2)
    results = _diagnosed(list(bar), options.dtype)
    done = report.Report(implementation.name, call, options.dtype, golden.C, golden.spec_version, results)
    if options.json:
        print(json.dumps(report.as_data(done), allow_nan=False, indent=1))
    else:
        print(report.as_text(done), end="")
    if options.junit:
        pages.write_junit(Path(options.junit), done)
    if options.html:
        pages.write_page(Path(options.html), done)
    if not done.ran:
        raise UserError(f"no case was run, so nothing is verified: all {len(cases)} were skipped")
    return 1 if done.failures() else 0


def _diagnosed(results: list[runner.Result], dtype: str) -> list[runner.Result]:
    if not any(result.failed for result in results):
        return results
    from refllm.verify import diagnosis  # the bank of mutants, of which a run without failures needs nothing

    return list(diagnosis.diagnosed(results, dtype))


def _write_requests(directory: Path, cases: list[Case], dtype: str) -> int:
    if directory.exists() and any(directory.iterdir()):
        raise UserError(f"--requests {directory}: is not empty; choose another directory")
    answerable = [case for case in cases if case.level < 6]
    for case in answerable:
        external.write_request(directory / case.id, case, dtype)
    print(
        f"{len(answerable)} requests in {directory}. Write response.json or response.safetensors beside each, then:\n"
        f"  {command('verify', '--responses', directory, '--dtype', dtype)}"
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
