"""What the text returns shares no memory with what it was given: the law that every implementation is held to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy
import pytest

from refllm.verify import corpus, plain

GOLDEN = corpus.load(corpus.folder(None))


def arrays(tree: Any) -> Iterator[Any]:
    """The arrays in dicts, lists and tuples."""
    if isinstance(tree, numpy.ndarray):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from arrays(branch)


def shared(f: Any, given: list[Any], keywords: dict[str, Any]) -> bool:
    """Whether an output of a function lies in the memory of an input."""
    with numpy.errstate(all="ignore"):
        y = f(*given, **keywords)
    inputs = [*arrays(given), *arrays(keywords)]
    return any(numpy.shares_memory(a, b) for a in arrays(y) for b in inputs)


@pytest.mark.parametrize("operation", sorted(plain.operations()))
def test_the_text_returns_arrays_of_its_own(operation: str) -> None:
    cases = [case for case in GOLDEN.cases.values() if case.operation == operation]
    f = plain.operations()[operation]
    assert [c.id for c in cases if shared(f, c.arguments("float64"), c.keyword_arguments())] == []


def test_an_input_that_is_returned_is_seen() -> None:
    assert shared(lambda x: (x.sum(), [x[1:]]), [numpy.ones(3)], {})
