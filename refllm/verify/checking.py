"""`check`: a live function, in a notebook or a test.

    from refllm.verify import check

    check(my_layer_norm, "layer_norm", dtype="float32")        shows the report
    check(my_layer_norm, "layer_norm").require()               fails a test, with the report as its message
    check(my_kernel, "softmax", dtype="float32", size="kernel")
    check(my_attention, arrays="torch", signatures="torch")    named as its own name says

The function runs where it is called: one that crashes takes the notebook along. `refllm verify` and the plugin of
pytest have a process for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, TypeVar

from refllm.errors import UserError
from refllm.numbers import plans
from refllm.verify import corpus, declared_plan, plugging, runner
from refllm.verify import laws as trying
from refllm.verify.adapter import Functions
from refllm.verify.case import CARRIERS, Case
from refllm.verify.explaining import SECONDS, explained
from refllm.verify.laws.at_size import held_at_size
from refllm.verify.plugging import Plug
from refllm.verify.report import Report, sentence
from refllm.verify.runner import Result
from refllm.verify.sized import cases as sized_cases
from refllm.verify.sized import judge
from refllm.verify.sized.beside import beside_tiny
from refllm.verify.sized.cases import SizedCase
from refllm.verify.sized.recognised import Recognised

AnyCase = Case | SizedCase
Chosen = TypeVar("Chosen", Case, SizedCase, AnyCase)
SIZES = ("tiny", "kernel", "all")
LAWS = 5.0  # seconds that laws may take


class Wrong(AssertionError):  # noqa: N818  (what a test reads is the report)
    """Something that was checked is wrong; the message is the report."""


class Checked:
    """What came out. It shows itself as the report; in a notebook as the page."""

    def __init__(self, report: Report) -> None:
        self.report = report

    @property
    def passed(self) -> bool:
        """Whether all that ran is right."""
        return not self.failures

    @property
    def failures(self) -> list[Result]:
        """The cases that differ from what is asked for; the diagnosis of each is `failure.diagnosis`."""
        return [result for result in self.report.results if result.failed]

    @property
    def data(self) -> dict[str, Any]:
        """The report as `refllm verify --json` gives it."""
        from refllm.verify.report_data import as_data

        return as_data(self.report)

    def require(self) -> Checked:
        """This, if all that ran is right. Raises Wrong, an AssertionError, with the report as its message."""
        if not self.passed:
            raise Wrong(f"{sentence(self.report)}\n\n{self!r}")
        return self

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        from refllm.verify.report_text import as_text

        return as_text(self.report).rstrip("\n")

    def _repr_html_(self) -> str:
        from refllm.verify.pages import fragment

        return fragment(self.report)


def check(
    what: Callable[..., Any] | Mapping[str, Callable[..., Any]] | ModuleType,
    operation: str | None = None,
    *,
    dtype: str = "float64",
    arrays: str | None = None,
    signatures: str | None = None,
    device: str | None = None,
    conventions: Mapping[str, str] | None = None,
    only: str | Iterable[str] = (),
    values: bool = False,
    laws: bool = True,
    search: float = SECONDS,
    size: str = "tiny",
    plan: Any = None,
    golden: str | None = None,
) -> Checked:
    """Checks a function against the golden cases of an operation, by default that of its name.

    `what` may also be a dictionary of functions by name, or a module. `only` chooses cases, as the flag does; `size` is
    "tiny", "kernel" or "all", and `plan` how a kernel rounds (a name, or a dictionary as `PLAN`); `arrays`,
    `signatures` and `device` are what the page on conformance says of an adapter. UserError if nothing can be checked.

    >>> right, wrong = lambda x: (np.maximum(x, 0), lambda dy: dy * (x > 0)), lambda x: (np.abs(x), lambda dy: dy)
    >>> check(right, "relu", only="FFN/relu-grid", search=0).passed
    True
    >>> check(wrong, "relu", only="FFN/relu-grid", search=0).passed
    False
    """
    if dtype not in CARRIERS:
        raise UserError(f"dtype is one of {', '.join(CARRIERS)}; got {dtype!r:.40}")
    if size not in SIZES:
        raise UserError(f"size is one of {', '.join(SIZES)}; got {size!r:.40}")
    corpus_ = corpus.remembered(corpus.folder(golden))
    functions, name = _functions(what, operation, signatures)
    plugged = plugging.plugged(functions, Plug(arrays, device, signatures), whole=not isinstance(what, ModuleType))
    dtypes = tuple(CARRIERS) if plugged.bridge is None else (*plugged.bridge.dtypes, "tf32")
    declared = {**plugged.conventions, **(conventions or {})}
    mine = Functions(name, plugged.functions, declared, dtypes, plugged.use_dtype, bridge=plugged.bridge)
    rounding = plans.plan(declared_plan.DEFAULT if plan is None else plan, dtype, "plan")
    of_size = [*(corpus_.cases.values() if size != "kernel" else ()), *(sized_of(corpus_) if size != "tiny" else ())]
    found = _cases(of_size, mine, only, asked=operation if operation not in functions else None)
    cases = [case for case in found if isinstance(case, Case)]
    cases = [case.values_alone() for case in cases] if values else cases
    results = runner.settled(runner.run(mine, cases, dtype, corpus_.C), dtype, corpus_.C)
    results = list(trying.held(mine, results, dtype, corpus_.C, LAWS)) if laws else results
    results = explained(results, dtype, corpus_.C, search)
    sized = [case for case in found if isinstance(case, SizedCase)]
    watched = Recognised(dtype, rounding, search)
    large = _at_size(mine, sized, dtype, rounding, watched if search else None, values=values, laws=laws)
    if search:
        tiny, how = corpus_.cases.values(), (dtype, corpus_.C, watched.left, watched.gives)
        large = beside_tiny(mine, large, tiny, *how, values=values, done=results)
    results += large
    report = Report(
        name, _call(name, operation, dtype, arrays, signatures, size), dtype, corpus_.C, corpus_.spec_version, results,
        golden=golden, declared=declared,
    )  # fmt: skip
    if not report.ran:
        reasons = list(dict.fromkeys(result.reason for result in results))
        raise UserError(f"no case was run, so nothing is checked: {'; '.join(reasons[:3])}")
    return Checked(report)


def sized_of(golden: corpus.Corpus) -> list[SizedCase]:
    """The sized cases beside the golden ones, the slow ones apart."""
    return [case for case in sized_cases.load(golden.folder).values() if not case.slow]


def _at_size(
    mine: Functions, cases: list[SizedCase], dtype: str, plan: plans.Plan, watched: Recognised | None, *,
    values: bool, laws: bool,
) -> list[Result]:  # fmt: skip
    """What comes out of sized cases, with the laws at their sizes and what explains the wrong ones."""
    if not cases:
        return []
    seen = None if watched is None else watched.look
    results = list(judge.run(mine, cases, dtype, plan, values=values, seen=seen))
    if laws:
        results = list(held_at_size(mine, cases, results, dtype, plan, LAWS))
    return results if watched is None else watched.explained(results)


def _functions(what: Any, operation: str | None, signatures: str | None) -> tuple[dict[str, Any], str]:
    """Functions by their names, and the name of all."""
    if isinstance(what, ModuleType):
        found = {name: f for name, f in vars(what).items() if callable(f) and not name.startswith("_")}
        return found, what.__name__
    if isinstance(what, Mapping):
        return dict(what), "functions"
    if not callable(what):
        raise UserError(f"a function is checked, or a dictionary or module of functions; got a {type(what).__name__}")
    own = getattr(what, "__name__", "")
    name = own if signatures is not None or operation is None else operation
    if not name:
        raise UserError(f'a {type(what).__name__} has no name: say the operation, as check(f, "layer_norm")')
    return {name: what}, own or name


def _cases(known: list[AnyCase], mine: Functions, only: str | Iterable[str], asked: str | None) -> list[AnyCase]:
    """The cases of what is there. UserError if there is none, with a name that may be meant."""
    wanted = [only] if isinstance(only, str) else list(only)
    found = [case for case in known if case.operation in mine.operations]
    if asked is not None:
        found = [case for case in found if case.operation == asked]
    found = chosen(found, wanted)
    if found:
        return found
    operations = sorted({case.operation for case in known})
    names = [asked] if asked else sorted(mine.operations) or [mine.name]
    near = difflib.get_close_matches(names[0], operations, 1, 0.6)
    meant = f"; is {near[0]} meant?" if near and near[0] != names[0] else "."
    raise UserError(
        f"no case is of {', '.join([*names[:4], *wanted[:2]])}{meant} Say an operation of golden/README.md, or the "
        'table that has this name, signatures="torch"'
    )


def chosen(cases: list[Chosen], wanted: list[str]) -> list[Chosen]:
    """Those that are named by specification id, operation or id; failing that, by the beginning of an id."""

    def is_meant(case: Chosen, name: str) -> bool:
        if any(name in (each.spec, each.operation, each.id) for each in cases):
            return name in (case.spec, case.operation, case.id)
        return case.id.startswith(name)

    return [case for case in cases if any(is_meant(case, name) for name in wanted)] if wanted else cases


def _call(name: str, operation: str | None, dtype: str, arrays: str | None, signatures: str | None, size: str) -> str:
    """The words that repeat it."""
    said = {
        "dtype": None if dtype == "float64" else dtype, "arrays": arrays, "signatures": signatures,
        "size": None if size == "tiny" else size,
    }  # fmt: skip
    parts = [name, *([f'"{operation}"'] if operation else []), *(f'{k}="{v}"' for k, v in said.items() if v)]
    return f"check({', '.join(parts)})"
