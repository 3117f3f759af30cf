"""The search for names that a pullback reads although they are bound twice or change later."""

from typing import Any

import pytest

from spec_tests.closures import rebound_names


def _op(forward: str, back: str = "dy * x", after: str = "") -> Any:
    """A forward pass of those lines, then a pullback, then the lines after it."""
    lines = [*forward.splitlines(), "def back(dy):", f"    return {back}", *after.splitlines(), "return y, back"]
    return "def op(x, *, p):\n" + "".join(f"    {line}\n" for line in lines)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (_op("x = x - 1"), "line 1, op: `x`, which back reads, is bound 2 times"),
        (_op("y = x\ny = y + 1", "dy * y"), "`y`, which back reads, is bound 2 times"),
        (_op("if p:\n    s = 1\nelse:\n    s = 2", "s * dy"), "`s`, which back reads, is bound 2 times"),
        (_op("for x in p:\n    pass"), "`x`, which back reads, is bound 2 times"),
        (_op("with p as x:\n    pass"), "`x`, which back reads, is bound 2 times"),
        (_op("a, x = p"), "`x`, which back reads, is bound 2 times"),
        (_op("print(x := 1)"), "`x`, which back reads, is bound 2 times"),
        (_op("x: int = 1"), "`x`, which back reads, is bound 2 times"),
        (_op("import x"), "`x`, which back reads, is bound 2 times"),
        (_op("s = 1\ns = 2", "[s for _ in dy]"), "`s`, which back reads, is bound 2 times"),
        (_op("s = 1\ns = 2", "(lambda: s)()"), "`s`, which back reads, is bound 2 times"),
        (_op("y = x", after="x += 1"), "`x`, which back reads, is changed after back was made"),
        (_op("y = x", after="x[0] = 1"), "`x`, which back reads, is changed after back was made"),
        (_op("y = x", after="x[0][1] += 1"), "`x`, which back reads, is changed after back was made"),
        ("def op(x):\n    x = x + 1\n    return x, lambda dy: dy * x", "`x`, which a lambda reads, is bound 2 times"),
    ],
)
def test_a_name_that_changes_under_its_reader_is_found(source: str, message: str) -> None:
    assert any(message in line for line in rebound_names(source))


@pytest.mark.parametrize(
    "source",
    [
        _op("y = x * 2"),
        _op("y = x * 2\ny = y + 1"),
        _op("y = x.copy()\ny += 1\ny[0] = 2", "dy * y"),
        _op("s = 1\ns = 2", "[s for s in dy]"),
        "def op(x):\n    def back(dy):\n        dy = dy + 1\n        return dy\n    return x, back",
        "def op(x):\n    y = [x for x in x]\n    return y, lambda dy: dy * x",
        "x = 1\nx = 2\ndef op():\n    return 1, lambda dy: dy * x",
    ],
)
def test_a_name_bound_once_or_changed_before_is_left_alone(source: str) -> None:
    assert rebound_names(source) == []
