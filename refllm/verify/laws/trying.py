"""Which cases each law is tried on, in which order, and for how long."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy

from refllm.verify.case import FaultError, RaisedError, Response, UnsupportedError
from refllm.verify.law import Law
from refllm.verify.laws.calls import again, between, layouts, poison, twice
from refllm.verify.laws.differences import same
from refllm.verify.laws.fresh import fresh
from refllm.verify.laws.neighbours import neighbours
from refllm.verify.laws.padding import padding
from refllm.verify.laws.swallowed import swallowed
from refllm.verify.laws.trial import Base, Trial

if TYPE_CHECKING:
    from refllm.verify.runner import Implementation, Result

Trials = Callable[[Base], Iterator[Trial]]

# The law, and on how many cases of an operation it is tried: the smallest that it can be tried on.
CASES: dict[Trials, int] = {
    fresh: 2, neighbours: 2, padding: 6, poison: 2, between: 1, layouts: 1, again: 1, swallowed: 1, twice: 1
}  # fmt: skip
TIME, OVER = "time for laws", "it was over before all of them were tried here; they may take as long as the run"
OF_A_WRONG_ONE = (again, layouts, poison, between)  # that compare one answer with another of the same implementation


def held(
    implementation: Implementation,
    results: Iterable[Result],
    dtype: str,
    C: float,
    seconds: float,
    *,
    casts: bool = False,
) -> Iterator[Result]:
    """The same results, with what was found of the laws; they are tried for so many seconds in all. With `casts`
    answers of another dtype are converted before they are compared, as they were before they were judged."""
    results = list(results)
    found: dict[str, list[Law]] = {}
    trying = Trying(implementation, dtype, time.monotonic() + seconds, casts)
    for case, laws in trying.found(_all_bases(implementation, results, dtype, C)):
        found.setdefault(case, []).extend(laws)
    for result in results:
        yield result.under_laws(found[result.case.id]) if result.case.id in found else result


class Trying:
    """An implementation that is asked further questions until a time."""

    def __init__(self, implementation: Implementation, dtype: str, until: float, casts: bool) -> None:
        self.implementation, self.dtype, self.until, self.casts = implementation, dtype, until, casts
        self.sees: frozenset[str] = getattr(implementation, "sees", frozenset())
        self.lost = set[str]()  # operations that crashed or hung: each further call may take as long

    def found(self, all_bases: dict[str, list[Base]]) -> Iterator[tuple[str, list[Law]]]:
        """Law by law over all operations, so that where time is short each operation has been tried on some."""
        cut = dict[str, str]()
        for law, most in CASES.items():
            for operation, bases in all_bases.items():
                tried, about = 0, set[str]()
                for base in bases:
                    if tried == most or operation in self.lost:
                        break
                    if time.monotonic() > self.until:
                        cut[operation] = bases[0].case.id
                        break
                    if not base.result.right and law not in OF_A_WRONG_ONE:
                        continue
                    trials = [trial for trial in law(base) if self._can(trial) and trial.about not in about]
                    about |= {trial.about for trial in trials if trial.about}
                    tried += bool(trials)
                    yield base.case.id, self.first_of(trials)
        yield from ((case, [Law(TIME, False, OVER)]) for case in cut.values())

    def first_of(self, trials: Iterable[Trial]) -> list[Law]:
        """Of each law that is tried by these the first that is broken, and else its first note."""
        found: dict[str, Law] = {}
        laws = [law for trial in trials if self._can(trial) for law in self._tried(trial)]
        for law in sorted(laws, key=lambda law: not law.broken):
            found.setdefault(law.name, law)
        return list(found.values())

    def _can(self, trial: Trial) -> bool:
        return not trial.needs or trial.needs in self.sees

    def _tried(self, trial: Trial) -> list[Law]:
        if trial.case.operation in self.lost or time.monotonic() > self.until:
            return []
        from refllm.verify.runner import in_dtype, respond

        try:
            response = respond(self.implementation, trial.case, self.dtype)
            if self.casts:
                response, _ = in_dtype(trial.case, response, self.dtype)
        except UnsupportedError:
            return []
        except RaisedError as error:
            return [Law(trial.law, not trial.refusable, f"{trial.done}, {error}")]
        except FaultError as error:
            self.lost.add(trial.case.operation)
            return [Law(trial.law, True, f"{trial.done}, {error}")]
        judged = trial.judge(response)
        if judged is not None and judged.broken and self._is_instead(trial, response):
            judged = replace(judged, message=f"{judged.message}; {trial.reason}")
        if judged is not None and judged.broken and trial.parts:
            judged = replace(judged, message=f"{judged.message}{self._which(trial)}")
        return [*([judged] if judged is not None else []), *(law for law in response.laws if law.broken)]

    def _is_instead(self, trial: Trial, response: Response) -> bool:
        """Whether it answers another case exactly so."""
        from refllm.verify.runner import in_dtype, respond

        case = trial.instead() if trial.instead is not None else None
        try:
            other = respond(self.implementation, case, self.dtype) if case is not None else None
        except (UnsupportedError, RaisedError):
            return False
        except FaultError:
            self.lost.add(trial.case.operation)
            return False
        if other is None or case is None:
            return False
        if self.casts:
            other, _ = in_dtype(case, other, self.dtype)
        return same(response, other)

    def _which(self, trial: Trial) -> str:
        """Which arguments alone break the law, if some do and some do not."""
        broken = {name: any(law.broken for law in self._tried(part)) for name, part in trial.parts}
        guilty, others = ([name for name, is_so in broken.items() if is_so is side] for side in (True, False))
        return f"; so it is if {' or '.join(guilty)} alone is given so" if guilty and others else ""


def _all_bases(implementation: Implementation, results: list[Result], dtype: str, C: float) -> dict[str, list[Base]]:
    """The answers to each operation that laws are tried on: right ones, smallest first, or else a wrong one."""
    seed = secrets.randbits(32)
    return {
        name: _bases(of_one, dtype, C, seed, declares=_declares(implementation, of_one))
        for name, of_one in _by_operation(results).items()
    }


def _declares(implementation: Implementation, results: list[Result]) -> bool:
    """Whether the implementation, or an answer of it, differs from the text by a convention."""
    known = {name for result in results for name in result.case.conventions}
    return bool(known & set(implementation.conventions)) or any(r.status == "convention" for r in results)


def _bases(results: list[Result], dtype: str, C: float, seed: int, *, declares: bool) -> list[Base]:
    usable = [r for r in results if r.case.level and r.response is not None]
    right = sorted((r for r in usable if r.right), key=_size)
    wrong = [r for r in usable if r.status == "fail" and all(v.comparable for v in r.verdicts)][:1]
    return [Base(r, r.response, dtype, C, seed, declares) for r in right or wrong if r.response is not None]


def _by_operation(results: Iterable[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.case.operation, []).append(result)
    return found


LEAST = 12  # numbers that a case has at least, if there is such a one: in fewer there is little to get wrong


def _size(result: Result) -> tuple[bool, bool, bool, int]:
    """Smallest first of those that have rows and some numbers, and nothing empty: in what has no row no law shows."""
    arrays = list(result.case.inputs.values())
    numbers = sum(int(numpy.size(x)) for x in arrays)
    has_rows = any(min(x.shape, default=0) > 1 and x.ndim > 1 for x in arrays)
    return any(not x.size for x in arrays), not has_rows, numbers < LEAST, numbers
