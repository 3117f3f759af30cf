"""A live function: the report that it gives is that of the command, and fails a test where it should."""

from __future__ import annotations

import functools
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.verify import Wrong, check, corpus, reference

RIGHT = reference.functions()


def test_a_right_function_passes_and_is_given_back() -> None:
    found = check(RIGHT["layer_norm"], "layer_norm", dtype="float32")
    assert found.passed
    assert found
    assert found.failures == []
    assert found.require() is found
    assert "16 passed" in repr(found)


def test_a_function_is_checked_as_its_name_says() -> None:
    def relu(x: Any) -> Any:
        return numpy.maximum(x, 0)

    assert check(relu, values=True).data["operations"] == check(relu, "relu", values=True).data["operations"]


@pytest.mark.every
def test_a_wrong_function_fails_with_the_report_as_its_message() -> None:
    def my_softmax(x: Any) -> Any:
        e = numpy.exp(x)
        return e / e.sum()

    found = check(my_softmax, "softmax", values=True)
    assert not found
    with pytest.raises(Wrong) as caught:
        found.require()
    assert isinstance(caught.value, AssertionError)
    for words in ("diagnosis", "my_softmax in float64", 'check(my_softmax, "softmax", only="SMX/'):
        assert words in str(caught.value)
    assert "<table>" in found._repr_html_()
    assert all(len(line) <= 80 for line in repr(found).splitlines() if not line.lstrip().startswith((">>>", "http")))


@pytest.mark.parametrize(
    ("arguments", "how", "message"),
    [
        ((lambda x: x, "layernorm"), {}, "is layer_norm meant"),
        ((lambda x: x, "relu"), {"dtype": "float8"}, "dtype is one of float64"),
        ((functools.partial(abs),), {}, "has no name: say the operation"),
        ((3,), {}, "got a int"),
        (({"relu": lambda x: x},), {"only": "ATT"}, "no case is of relu"),
    ],
)
def test_what_cannot_be_checked_is_one_line(arguments: Any, how: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check(*arguments, **how)
    assert "\n" not in str(caught.value)


def test_a_function_that_supports_nothing_is_not_said_to_pass() -> None:
    def relu(x: Any) -> Any:
        raise NotImplementedError("not yet")

    with pytest.raises(UserError, match="nothing is checked: relu says that it does not support this: not yet"):
        check(relu)


def test_only_chooses_cases(golden: corpus.Corpus) -> None:
    found = check(RIGHT["attention"], "attention", only="ATT-MASK")
    assert {r.case.spec for r in found.report.results} == {"ATT-MASK"}


def test_at_the_sizes_of_kernels_a_lost_tail_is_found_with_its_place() -> None:
    def without_tail(x: Any) -> Any:
        y = RIGHT["relu"](x)[0].copy()
        y[..., y.shape[-1] // 32 * 32 :] = -1
        return y

    how: dict[str, Any] = {"dtype": "float32", "values": True, "only": "FFN/kernel-relu-3x1023", "search": 0}
    assert check(RIGHT["relu"], "relu", size="kernel", **how)
    found = check(without_tail, "relu", size="kernel", **how)
    assert not found
    assert "the tail after whole tiles of" in " ".join(repr(found).split())
    assert 'size="kernel"' in repr(found)


def test_a_size_and_a_plan_that_are_none_are_one_line() -> None:
    with pytest.raises(UserError, match="size is one of tiny, kernel, all; got 'big'"):
        check(RIGHT["relu"], "relu", size="big")
    with pytest.raises(UserError, match="plan"):
        check(RIGHT["relu"], "relu", plan="fast")
