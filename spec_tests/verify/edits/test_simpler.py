"""A line of a diff as somebody would write it is the same statement."""

from __future__ import annotations

import pytest

from refllm.verify.edits.simpler import simplified


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("+ t = w * (1 - 0)", "+ t = w"),
        ("+ c = (((1 - lr) * m)) * g", "+ c = (1 - lr) * m * g"),
        ("+ r = 1 / (sqrt((a + b)) + w)", "+ r = 1 / (sqrt(a + b) + w)"),
        ("+ return z[0 * N : 1 * N], z[N:]", "+ return z[:N], z[N:]"),
        ("+ t = 0 + w / 2", "+ t = w / 2"),
        ('+ n = f("a")', '+ n = f("a")'),
        ("+ where(m, z, 0), axis=-1", "+ where(m, z, 0), axis=-1"),  # a line of a longer statement
        ("+ x = ((a", "+ x = ((a"),
    ],
)
def test_a_line_loses_what_says_nothing_and_keeps_its_words(line: str, written: str) -> None:
    assert simplified(line) == written


def test_the_number_of_a_line_stays() -> None:
    known = {"a": 3.0, "b": 5.0, "w": 7.0}
    for line in ("x = ((a + b) * w) - 1 + 1", "x = (((a))) * 1 + w - 0", "x = w / ((a - b) - 0)"):
        found = simplified(f"+ {line}")[2:]
        assert found != line
        assert eval(found.partition("= ")[2], {}, known) == eval(line.partition("= ")[2], {}, known)
