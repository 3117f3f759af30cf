"""Edited text ends: its work is counted, whatever an edit makes of a loop."""

from __future__ import annotations

import time
from types import FunctionType
from typing import Any, cast

import pytest

from refllm.spec.beam_search import ends, over, search
from refllm.verify import bounded, corpus, plain, runner
from refllm.verify.adapter import Functions
from refllm.verify.edits import compiled, source_of
from refllm.verify.search import explained


@pytest.fixture(scope="module")
def golden() -> corpus.Corpus:
    return corpus.load(corpus.folder(None))


@pytest.mark.parametrize("loop", ["while True:\n        pass", "n = [0]\n    for x in n:\n        n.append(x)"])
def test_a_loop_of_edited_source_ends(loop: str) -> None:
    endless = compiled(cast(FunctionType, ends), f"def ends(text, end, longest):\n    {loop}\n")
    assert endless is not None
    with bounded.at_most(100) as work, pytest.raises(bounded.EndlessError):
        endless(None, None, 0)
    assert work.steps == 101


@pytest.mark.parametrize("endless", ["[n for n in iter(int, 1)]", "[n for n in range(10**12)]", "7 ** 10**12"])
def test_a_comprehension_and_a_power_of_edited_source_end(endless: str) -> None:
    edited = compiled(cast(FunctionType, ends), f"def ends(text, end, longest):\n    return {endless}\n")
    assert edited is not None
    with bounded.at_most(100), pytest.raises(bounded.EndlessError):
        edited(None, None, 0)


def test_text_that_goes_on_for_ever_gives_no_answer(golden: corpus.Corpus) -> None:
    """The loop that never ends is one of the text, since what it asks is edited."""
    never: Any = compiled(cast(FunctionType, ends), "def ends(text, end, longest):\n    return False\n")
    assert plain.answer(golden.cases["GEN/beam-ends"], "float64", {ends: never}, traced=False) is None


def test_the_text_itself_takes_as_many_steps_every_time(golden: corpus.Corpus) -> None:
    case, steps = golden.cases["GEN/beam-ends"], []
    for _ in range(2):
        with bounded.at_most() as work:
            assert plain.answer(case, "float64", {}, traced=False) is not None
            steps.append(work.steps)
    assert steps[0] == steps[1]


@pytest.mark.slow
def test_a_search_that_stops_early_is_explained_in_the_time_that_there_is(golden: corpus.Corpus) -> None:
    early = source_of(over).replace("return bool(bound <= worst)", "return True")
    wrong: dict[Any, Any] = {over: compiled(cast(FunctionType, over), early)}
    cases = [case for case in golden.cases.values() if case.operation == "beam_search"]

    def stops_early(*arguments: object, **keywords: object) -> object:
        with plain.exchanged(wrong):
            return plain.operations()["beam_search"](*arguments, **keywords)

    results = list(runner.run(Functions("a stranger", {"beam_search": stops_early}, {}), cases, "float64", golden.C))
    assert any(result.wrong for result in results)
    start = time.perf_counter()
    found = explained(results, "float64", seconds=20)
    assert time.perf_counter() - start < 23
    assert {edit.original for edit in found["beam_search"].edits} <= {over, search, ends}
