"""Which cases `refllm verify` runs: those that its flags choose of the tiny and of the sized ones."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from refllm.errors import UserError
from refllm.invocation import command
from refllm.verify import corpus, report
from refllm.verify.case import Case
from refllm.verify.sized.cases import SizedCase
from refllm.verify.sized.cases import load as load_sized

SIZES = ("tiny", "kernel", "all")
BITS = ("narrowed", "widened")  # operations of level 1 that give bits, and so are asked for by level 0 too

AnyCase = Case | SizedCase


@dataclass(frozen=True)
class Selection:
    """The cases of a run."""

    tiny: list[Case]
    sized: list[SizedCase]

    def __len__(self) -> int:
        return len(self.tiny) + len(self.sized)


def require_size(options: argparse.Namespace) -> None:
    """UserError if flags speak of sized cases where there are none."""
    if options.mutants and options.size == "all":
        raise UserError("--mutants puts one bank to its cases: --size tiny, or --size kernel for mistakes of kernels")
    if options.slow and options.size == "tiny":
        raise UserError("--slow is for the sized cases: add --size kernel or --size all")
    if options.tensors and not (options.requests and options.size != "tiny"):
        raise UserError("--tensors is for --requests DIR with --size kernel or --size all")


def selected(golden: corpus.Corpus, options: argparse.Namespace) -> Selection:
    """The cases that the flags choose, in the order of the manifests. UserError if there is none."""
    tiny = list(golden.cases.values()) if options.size != "kernel" else []
    sized = list(load_sized(golden.folder).values()) if options.size != "tiny" else []
    found = chosen_cases([*tiny, *sized], options.level, options.only)
    if not found:
        listed = command("verify", "--self", "--json")
        raise UserError(f"no case is chosen by these flags; `{listed}` lists every id, with --size all the sized too")
    chosen = [case for case in found if isinstance(case, Case)]
    large = [case for case in found if isinstance(case, SizedCase)]
    if not options.slow:
        large = [case for case in large if not case.slow or case.id in (options.only or [])]
    if not chosen and not large:
        raise UserError("all cases that are chosen by these flags are slow; add --slow")
    return Selection([case.values_alone() for case in chosen] if options.values else chosen, large)


def chosen_cases(cases: list[AnyCase], levels: list[str] | None, only: list[str] | None) -> list[AnyCase]:
    """Those of these cases that the flags choose."""
    if levels:
        wanted = {_level(text) for text in levels}
        cases = [case for case in cases if case.level in wanted or (0 in wanted and case.operation in BITS)]
    return cases if not only else [case for case in cases if any(_is_meant(case, name, cases) for name in only)]


def _level(text: str) -> int:
    digits = text.removeprefix("L")
    if digits not in {str(level) for level in report.LEVELS}:
        raise UserError(f"--level {text}: the levels are 0 to {max(report.LEVELS)}")
    return int(digits)


def _is_meant(case: AnyCase, name: str, cases: list[AnyCase]) -> bool:
    """The whole of a specification id, operation or case id; failing that, the beginning of a case id."""
    if any(name in (each.spec, each.operation, each.id) for each in cases):
        return name in (case.spec, case.operation, case.id)
    return case.id.startswith(name)
