"""The grammar of the `Shapes:` line."""

from __future__ import annotations

import pytest

from refllm.shapes import ShapesError, parse, sections


def test_an_array_is_a_name_and_dimensions() -> None:
    (x, g), (y,) = parse("op", "x (..., T, C); g (C,) -> y ()")
    assert (x.name, x.dimensions, x.batched, x.kind) == ("x", ("...", "T", "C"), True, "float")
    assert [d.text for d in x.letters] == ["T", "C"]
    assert (g.name, g.dimensions, g.batched) == ("g", ("C",), False)
    assert (y.name, y.dimensions) == ("y", ())


@pytest.mark.parametrize(
    ("text", "kind", "how", "optional", "count", "bound"),
    [
        ("x (B, T)", "float", "", False, None, None),
        ("x bool (B, T)", "bool", "", False, None, None),
        ("x bool (B, T), or None", "bool", "", True, None, None),
        ("x int (B, T)", "int", "", False, None, None),
        ("x real (B, T), or None", "real", "", True, None, None),
        ("x (B, T) in [0, V)", "int", "", False, None, "V"),
        ("x (B, T) in [0, E*K+1)", "int", "", False, None, "E*K+1"),
        ("x (B, T) in [0, V) or `ignore`", "int", "", False, None, "V"),
        ("x bool broadcast to (B, T), or None", "bool", "broadcast to", True, None, None),
        ("x end of (B, T) in [0, S)", "int", "end of", False, None, "S"),
        ("x[2] bool (B, T), or None", "bool", "", True, "2", None),
        ("x[parts] (B, T)", "float", "", False, "parts", None),
    ],
)
def test_what_stands_around_the_dimensions(
    text: str, kind: str, how: str, optional: bool, count: str | None, bound: str | None
) -> None:
    ((x,), _) = parse("op", f"{text} -> y ()")
    assert (x.kind, x.how, x.optional, x.count, x.bound) == (kind, how, optional, count, bound)


def test_a_dimension_is_a_sum_of_products() -> None:
    ((x,), _) = parse("op", "x (T+S-1, 4*N, 2) -> y ()")
    assert [d.terms for d in x.letters] == [
        ((1, ("T",)), (1, ("S",)), (-1, ("1",))),
        ((1, ("4", "N")),),
        ((1, ("2",)),),
    ]


def test_an_output_may_have_another_shape_for_a_keywords_value() -> None:
    _, (y,) = parse("op", 'x (..., V) -> y () or, for "none", (...)')
    assert (y.dimensions, y.other) == ((), ("none", ("...",)))


@pytest.mark.parametrize(
    "wrong",
    ["x -> y ()", "x of C -> y ()", "x (C -> y ()", "x (C,), a vector -> y ()", "x 2 x (C,) -> y ()", "-> y ()"],
)
def test_what_is_not_in_the_grammar_is_refused(wrong: str) -> None:
    with pytest.raises(ShapesError, match=r"op: `Shapes:` holds .*, which is not `name "):
        parse("op", wrong)


def test_a_line_without_a_result_is_refused() -> None:
    with pytest.raises(ShapesError, match="op: `Shapes:` has no `->`"):
        parse("op", "x (C,)")


def test_sections_go_on_over_indented_lines() -> None:
    docstring = """First line

    Words.
    Shapes:  x (C,);
             y (C,) -> z ()
    Back:    dx = dz
    Not a section
    """
    assert sections(docstring) == {"Shapes": "x (C,); y (C,) -> z ()", "Back": "dx = dz"}
