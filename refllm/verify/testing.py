"""What the plugin of pytest (`refllm/pytest.py`) has once it is used: tests of an adapter, cases of a live function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from refllm.errors import UserError
from refllm.verify import checking, corpus, laws, runner
from refllm.verify.case import CARRIERS, Case
from refllm.verify.explaining import explained
from refllm.verify.isolated import Isolated
from refllm.verify.plugging import Plug
from refllm.verify.report import Report
from refllm.verify.report_text import of_case
from refllm.verify.runner import Result

LAWS = 1.0  # seconds that the laws may take for a case


class CaseFailedError(AssertionError):
    """A case is wrong; the message is its part of the report."""


class Run:
    """An adapter in one precision, in a process of its own until the session ends."""

    def __init__(self, source: str, plug: Plug, dtype: str, timeout: float, known: corpus.Corpus) -> None:
        self.source, self.dtype, self.known = source, dtype, known
        self.implementation = Isolated(Path(source), timeout, plug, alone=True)
        self._results: dict[str, Result] = {}
        self._explained: set[str] = set()
        self._cases: list[Case] = []
        said = {"signatures": plug.signatures, "arrays": plug.arrays, "device": plug.device}
        self.call = "".join([source, *(f" --{name} {value}" for name, value in said.items() if value)])

    def cases(self, wanted: Iterable[str], *, values: bool) -> list[Case]:
        """Those of the operations that it has. UserError if there is none."""
        mine = [case for case in self.known.cases.values() if case.operation in self.implementation.operations]
        found = checking.chosen(mine, list(wanted))
        if not found:
            has = ", ".join(sorted(self.implementation.operations)[:6]) or "no public function"
            raise UserError(f"--refllm {self.source}: no case is of what it has ({has}), or of what is chosen")
        self._cases = [case.values_alone() for case in found] if values else found
        return self._cases

    def result(self, case: Case) -> Result:
        """What becomes of a case. Where one fails, all of its operation are run: the diagnosis looks at all."""
        if case.id not in self._results:
            self._results[case.id] = self._answered(case)
        if self._results[case.id].failed and case.operation not in self._explained:
            self._explain(case.operation)
        return self._results[case.id]

    def _answered(self, case: Case) -> Result:
        [result] = runner.run(self.implementation, [case], self.dtype, self.known.C)
        [result] = laws.held(self.implementation, [result], self.dtype, self.known.C, LAWS)
        return result

    def _explain(self, operation: str) -> None:
        self._explained.add(operation)
        cases = [case for case in self._cases if case.operation == operation]
        results = [self._results.get(case.id) or self._answered(case) for case in cases]
        results = explained(runner.settled(results, self.dtype, self.known.C), self.dtype, self.known.C)
        self._results |= {result.case.id: result for result in results}

    def text(self, result: Result) -> str:
        results = [each for each in self._results.values() if each.case.operation == result.case.operation]
        declared = self.implementation.conventions
        report = Report(self.implementation.name, self.call, self.dtype, self.known.C, self.known.spec_version, results,
                        declared=declared)  # fmt: skip
        return of_case(report, result)


class CaseItem(pytest.Item):
    """A golden case as a test."""

    def __init__(self, *, run: Run, case: Case, **how: Any) -> None:
        super().__init__(**how)
        self.run, self.case = run, case
        self.add_marker("refllm")

    def runtest(self) -> None:
        result = self.run.result(self.case)
        self.user_properties.append(("verdict", result.status))
        if result.failed:
            raise CaseFailedError(self.run.text(result))
        if result.status in ("skip", "value"):
            pytest.skip(result.reason)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, CaseFailedError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return Path(self.run.source), None, f"{self.case.id} in {self.run.dtype}"


def collected(session: pytest.Session, asked: Mapping[str, Any]) -> list[CaseItem]:
    """A test for each case of each adapter in each precision. UserError if there is none."""
    known, found = corpus.load(corpus.folder(None)), list[CaseItem]()
    plug = Plug(asked["-arrays"], asked["-device"], asked["-signatures"])
    for source in asked[""]:
        for dtype in asked["-dtype"].split(","):
            if dtype not in CARRIERS:
                raise UserError(f"--refllm-dtype: {dtype!r:.40} is none of {', '.join(CARRIERS)}")
            run = Run(source, plug, dtype, asked["-timeout"], known)
            session.config.add_cleanup(run.implementation.close)
            for case in run.cases(asked["-only"] or [], values=asked["-values"]):
                name = f"{case.id}-{dtype}"
                found.append(CaseItem.from_parent(session, name=name, nodeid=f"{source}::{name}", run=run, case=case))
    return found


class LiveCase:
    """A golden case for a function of the test. `arguments`, `keywords`, `outputs` and `gradients` are its parts."""

    def __init__(self, case: Case, dtype: str, how: dict[str, Any]) -> None:
        self.case, self.id, self.dtype, self._how = case, case.id, dtype, how

    def check(self, function: Any) -> None:
        """Fails the test with the diagnosis if the function is wrong; skips it where it does not support the case."""
        how = {"dtype": self.dtype, **self._how}
        try:
            found = checking.check(function, self.case.operation, only=self.id, search=0, **how)
        except UserError as error:
            pytest.skip(str(error))
        if found.passed:
            return
        whole = checking.check(function, self.case.operation, **how)  # the diagnosis looks at all cases
        result = next(result for result in whole.report.results if result.case.id == self.id)
        raise CaseFailedError(of_case(whole.report, result))


def live_cases(operation: str, *, dtype: str = "float64", only: str | Iterable[str] = (), **how: Any) -> list[LiveCase]:
    """The cases of an operation. UserError if there is none."""
    known = corpus.load(corpus.folder(None))
    mine = [case for case in known.cases.values() if case.operation == operation]
    if not mine:
        raise UserError(f"{operation!r:.60} is no operation of golden/README.md")
    if dtype not in CARRIERS:
        raise UserError(f"dtype is one of {', '.join(CARRIERS)}; got {dtype!r:.40}")
    unknown = set(how) - {"arrays", "signatures", "values", "conventions", "device"}
    if unknown:
        raise UserError(f"there is no {sorted(unknown)[0]} to be said")
    return [
        LiveCase(case, dtype, how) for case in checking.chosen(mine, [only] if isinstance(only, str) else list(only))
    ]
