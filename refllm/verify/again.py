"""Whether a failure is one of its case alone, or depends on what was called before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from refllm.errors import UserError
from refllm.verify.report import shown
from refllm.verify.runner import Implementation, Result, run

SECONDS = 30.0  # that trying failures alone may take in all; those beyond are left untried


def tried_alone(
    results: list[Result],
    fresh: Callable[[float], AbstractContextManager[Implementation]],
    dtype: str,
    C: float,
    *,
    casts: bool,
) -> Iterator[Result]:
    """The same results; of the failures that the report shows it is known whether they fail alone too.

    `fresh` starts the implementation anew, with a time limit for a case.
    """
    until, meant = time.monotonic() + SECONDS, {result.case.id for result in shown(results)}
    for result in results:
        left = until - time.monotonic()
        if result.case.id not in meant or result.status == "law" or left <= 0 or "(--timeout)" in result.reason:
            yield result
            continue
        try:
            with fresh(left) as implementation:
                [alone] = run(implementation, [result.case], dtype, C, casts=casts)
            yield replace(result, alone=alone.status in ("pass", "value"))
        except UserError:  # it cannot be started again
            yield result
