"""`refllm verify --mutants`: the banks of known mistakes put to the cases, and which of them die."""

from __future__ import annotations

import argparse
import json
import sys

from refllm.commands.selection import Selection
from refllm.errors import UserError
from refllm.verify import corpus
from refllm.verify.case import Case
from refllm.verify.sized.cases import SizedCase


def put_to(golden: corpus.Corpus, cases: Selection, options: argparse.Namespace) -> int:
    """The mistakes of kernels where sized cases are chosen, else those of the specification; 1 if one survives."""
    return _kernels(cases.sized, options) if cases.sized else _mutants(golden, cases.tiny, options)


def _mutants(golden: corpus.Corpus, cases: list[Case], options: argparse.Namespace) -> int:
    from refllm.verify import matrix, reference
    from refllm.verify.imitations import Imitations

    if options.dtype not in reference.DTYPES:
        raise UserError(f"--mutants runs in {' or '.join(reference.DTYPES)}; got --dtype {options.dtype}")
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
    from refllm.verify import declared_plan
    from refllm.verify.kernels import table

    if options.dtype not in table.DTYPES:
        raise UserError(f"--mutants --size kernel runs in {' or '.join(table.DTYPES)}; got --dtype {options.dtype}")
    deaths = table.measure(sized, declared_plan.chosen(options.plan, None, options.dtype))
    if not deaths:
        raise UserError(f"no mistake of a kernel is of the cases chosen; there are some of {', '.join(table.KNOWN)}")
    print(json.dumps(table.as_data(deaths), indent=1) if options.json else table.as_text(deaths), end="")
    if options.json:
        print()
    sys.stdout.flush()
    return 1 if table.survivors(deaths) else 0
