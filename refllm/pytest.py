"""Plugin of pytest: an adapter with one test a case, or a case a test of yours. `pip install` is all it takes.

    pytest --refllm my_adapter.py --refllm-dtype float32

    @pytest.mark.refllm("layer_norm", dtype="float32", arrays="torch")
    def test_layer_norm(refllm_case):
        refllm_case.check(my_layer_norm)

Nothing else of refllm is imported before one of the two is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from refllm.verify.testing import CaseItem

_MARK = (
    "refllm(operation, dtype='float64', only=(), arrays=None, signatures=None, values=False, conventions=None): "
    "the golden cases that the fixture refllm_case goes through"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("refllm", "an implementation against the golden files of refllm")
    add = group.addoption
    add("--refllm", action="append", metavar="ADAPTER.py", help="a Python file or module: one test a golden case")
    add("--refllm-dtype", default="float64", metavar="DTYPE", help="its precision; several with commas between")
    add("--refllm-only", action="append", metavar="ID", help="only this specification id, operation or case")
    add("--refllm-arrays", metavar="LIBRARY", help="whose arrays its functions take: torch, jax …")
    add("--refllm-signatures", metavar="TABLE", help="whose names its functions have: torch, jax, keras, onnx")
    add("--refllm-device", metavar="NAME", help="where those arrays are")
    add("--refllm-values", action="store_true", help="values alone, for functions without gradients")
    add("--refllm-timeout", type=float, default=60, metavar="SECONDS", help="seconds that a case may take (60)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARK)


@pytest.hookimpl(tryfirst=True)  # before -k and -m choose
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--refllm"):
        items += _cases(session, config)


def _cases(session: pytest.Session, config: pytest.Config) -> list[CaseItem]:
    from refllm.errors import UserError
    from refllm.verify.testing import collected

    try:
        return collected(session, {name: config.getoption(f"--refllm{name}") for name in _ASKED})
    except UserError as error:
        raise pytest.UsageError(str(error)) from None


_ASKED = ("", "-dtype", "-only", "-arrays", "-signatures", "-device", "-values", "-timeout")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "refllm_case" not in metafunc.fixturenames:
        return
    from refllm.errors import UserError
    from refllm.verify.testing import live_cases

    marks = list(metafunc.definition.iter_markers("refllm"))
    try:
        cases: list[Any] = [case for mark in marks for case in live_cases(*mark.args, **mark.kwargs)]
    except (UserError, TypeError) as error:
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: @pytest.mark.refllm: {error}") from None
    if not marks:
        raise pytest.UsageError(
            f'{metafunc.definition.nodeid} takes refllm_case: say of what, @pytest.mark.refllm("layer_norm")'
        )
    metafunc.parametrize("refllm_case", cases, ids=[f"{case.id}-{case.dtype}" for case in cases])
