"""Edits of loops over blocks change an answer to a sized case, each, and say what they are."""

from __future__ import annotations

import numpy
import pytest

from refllm.verify import corpus, runner
from refllm.verify.case import Case, FaultError
from refllm.verify.kernels import bank
from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.carried import carried
from refllm.verify.kernels.tiled import blocks
from refllm.verify.sized import cases
from refllm.verify.sized.work import work

KNOWN = sorted(cases.load(corpus.folder(None)).values(), key=work)
LARGEST = 2_000_000  # the work of a case that is asked
HAS = [name for name in bank.OPERATIONS if blocks.edits(name)]


def same(mistake: Mistake, operation: str, case: Case) -> bool:
    answers = []
    for each in (mistake, None):
        implementation = bank.implementation(each, among=[operation], BLOCK=32)
        try:
            found = runner.respond(implementation, case, "float64")
        except FaultError:
            return False
        answers.append([*found.outputs.values(), *(found.gradients or {}).values()])
    return all(numpy.allclose(x, y, rtol=1e-9, atol=1e-12, equal_nan=True) for x, y in zip(*answers, strict=True))


@pytest.mark.one_in(8)
@pytest.mark.parametrize("operation", HAS)
def test_every_edit_of_a_loop_changes_an_answer_to_a_sized_case(operation: str) -> None:
    left = [m for m in blocks.edits(operation) if operation != "cross_entropy" or "smoothing" not in str(m.diff)]
    assert left
    for sized in [each for each in KNOWN if each.operation == operation and work(each) < LARGEST]:
        case = sized.case()
        left = [m for m in left if same(m, operation, case)]
        if not left:
            break
    assert [(m.about, m.diff) for m in left] == []


def test_every_operation_of_rows_has_edits_that_are_python_and_have_words_of_their_own() -> None:
    assert len(HAS) > 15
    for operation in HAS:
        found = blocks.edits(operation)
        assert all(m.codes and m.about.startswith(f"{operation} in which ") for m in found)
        assert len({(m.about, str(m.diff)) for m in found}) == len(found)
        assert all(m.operation == operation and m.reaches(operation) for m in found)


@pytest.mark.parametrize(("operation", "names"), [("rnn", {"dh"}), ("lstm", {"dh", "dc"}), ("gru_reset_after", {"dh"})])
def test_what_a_gradient_carries_through_time_is_found_in_the_text(operation: str, names: set[str]) -> None:
    found = [cause.about for cause in carried(operation)]
    assert {name for name in ("dh", "dc", "dz") if any(f"loses {name} at" in about for about in found)} == names
    assert len(set(found)) == len(found)
