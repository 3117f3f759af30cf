"""What `refllm verify` has under test: the implementation that its flags name, and the words that name it again."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from refllm.errors import UserError
from refllm.numbers.plans import Plan
from refllm.verify import adapter, again, corpus, device, external, isolated, library, reference, report, runner, served
from refllm.verify.plugging import Plug
from refllm.verify.sized import alone
from refllm.verify.sized.cases import SizedCase


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
def implementation_of(options: argparse.Namespace, golden: corpus.Corpus) -> Iterator[runner.Implementation]:
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


def call_of(options: argparse.Namespace) -> str:
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


def repeated(options: argparse.Namespace) -> str:
    """The flags without which a repetition would be another run."""
    words = [f" --{name}" for name in ("values", "cast", "slow") if getattr(options, name)]
    words += [f" --size {options.size}"] if options.size != "tiny" else []
    words += [] if options.laws else [" --no-laws"]
    words += [f" --convention {shlex.quote(pair)}" for pair in options.convention or []]
    words += [f" --plan {shlex.quote(options.plan)}"] if options.plan else []
    words += [f" --golden {shlex.quote(options.golden)}"] if options.golden else []
    return "".join(words + ([f" --timeout {options.timeout:g}"] if options.timeout != 60 else []))


def tried_alone(
    implementation: runner.Implementation,
    results: list[runner.Result],
    golden: corpus.Corpus,
    options: argparse.Namespace,
) -> list[runner.Result]:
    """Where calls share a process, whether the failures that are shown depend on an earlier call."""
    fresh = _fresh(implementation, options)
    if fresh is None or len(results) <= 1:
        return results
    return list(again.tried_alone(results, fresh, options.dtype, golden.C, casts=options.cast))


def sized_alone(
    implementation: runner.Implementation,
    results: list[runner.Result],
    cases: list[SizedCase],
    plan: Plan,
    options: argparse.Namespace,
) -> list[runner.Result]:
    """The same of sized cases."""
    fresh = _fresh(implementation, options)
    if fresh is None or len(results) <= 1:
        return results
    how = {"casts": options.cast, "values": options.values}
    return alone.tried_alone(results, cases, fresh, options.dtype, plan, **how)


def _fresh(implementation: runner.Implementation, options: argparse.Namespace) -> alone.Fresh | None:
    """How an implementation is started anew, with a time limit for a case; None where calls share no process."""
    if not isinstance(implementation, isolated.Isolated | served.Served):
        return None

    def fresh(left: float) -> isolated.Isolated | served.Served:
        found = implementation.fresh(min(left, options.timeout))
        found.conventions = implementation.conventions
        return found

    return fresh


def why_nothing(implementation: runner.Implementation, done: report.Report) -> str:
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
