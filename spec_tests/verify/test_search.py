"""The search over the edits of the text explains what nobody listed, and nothing where nothing is wrong."""

from __future__ import annotations

import functools
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.verify import bounded, corpus, diagnosis, plain, proposals, reference, runner, search, weighing
from refllm.verify.adapter import Functions
from refllm.verify.edits import edits
from refllm.verify.explanation import Explanation
from refllm.verify.imitations import equal
from spec_tests.verify import (
    distorted,
    strangers_in_parts,
    strangers_of_kinds,
    strangers_of_numbers,
    strangers_of_outputs,
    strangers_of_places,
    strangers_of_terms,
    strangers_of_uses,
    strangers_of_ways,
)
from spec_tests.verify.strangers import STRANGERS


@functools.cache
def golden() -> corpus.Corpus:
    return corpus.load(corpus.folder(None))


@pytest.fixture(autouse=True)
def seconds_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search has its seconds whatever else the machine does."""
    monkeypatch.setattr(time, "perf_counter", time.process_time)


def results(operation: str, f: Callable[..., Any], dtype: str = "float64") -> list[runner.Result]:
    cases = [case for case in golden().cases.values() if case.operation == operation]
    return list(runner.run(Functions("a stranger", {operation: f}, {}), cases, dtype, golden().C))


DEAR = {  # operations of many evaluations, or of a whole model; and mistakes that are found late
    "train", "span_loss", "pretraining_loss", "yarn_between_places_that_are_not_rounded",
    "layer_norm_unbiased_with_eps_outside",
}  # fmt: skip
PARTS = (
    strangers_in_parts,
    strangers_of_kinds,
    strangers_of_numbers,
    strangers_of_outputs,
    strangers_of_places,
    strangers_of_terms,
    strangers_of_uses,
    strangers_of_ways,
)
OF_PARTS = {each.__name__ for each in PARTS}


def strangers() -> list[Any]:
    """By default one of each operation, those whose mistake is in one part, and those of the rarer kinds."""
    seen, found = Counter[str](), []
    for name, (operation, f, _) in STRANGERS.items():
        seen[operation] += 1
        first = not {name, operation} & DEAR and (seen[operation] == 1 or f.__module__ in OF_PARTS)
        found.append(pytest.param(name, id=name, marks=() if first else pytest.mark.slow))
    return found


@pytest.mark.one_in(36)
@pytest.mark.parametrize("name", strangers())
def test_a_mistake_that_nobody_listed_is_explained_by_a_diff_of_the_specification(name: str) -> None:
    operation, f, says = STRANGERS[name]
    held = results(operation, f)
    wrong = {result.case.id for result in held if result.wrong}
    if not wrong:  # a convention, which is recognised as one
        assert any(result.status == "convention" for result in held)
        return
    found = search.explained(held, "float64", seconds=60)[operation]
    diff = [line for _, lines in found.diff for line in lines]
    assert any(text in line for text in says for line in diff), diff
    assert found.explained <= wrong
    assert len(found.explained) > len(wrong) / 2


@pytest.mark.parametrize("name", ["attention_scaled_by_width", "layer_norm_unbiased", "adamw_is_adam"])
def test_a_mistake_is_explained_in_float32_too(name: str) -> None:
    operation, f, says = STRANGERS[name]
    in_float32 = lambda *arrays, **keywords: _as(numpy.float32, f(*arrays, **keywords))
    found = search.explained(results(operation, in_float32, "float32"), "float32", seconds=60)[operation]
    assert any(text in line for _, lines in found.diff for text in says for line in lines)


def _as(dtype: type, y: Any) -> Any:
    return tuple(x.astype(dtype) for x in y) if isinstance(y, tuple) else y.astype(dtype)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_right_answers_are_explained_by_nothing(dtype: str) -> None:
    for operation in ("attention", "layer_norm", "cross_entropy", "adamw", "lstm"):
        assert search.explained(results(operation, reference.functions()[operation], dtype), dtype) == {}


@pytest.mark.slow
def test_what_no_edit_gives_is_explained_by_nothing() -> None:
    noise = numpy.random.default_rng(1)
    found = search.explained(results("softmax", lambda x: noise.normal(size=x.shape)), "float64", seconds=2)
    assert found == {}


class Clock:
    """Seconds that are steps of work, which are the same on every machine."""

    STEP = 1e-4

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps, original = 0, bounded.Work.step

        def step(work: bounded.Work) -> None:
            self.steps += 1
            original(work)

        monkeypatch.setattr(bounded.Work, "step", step)
        for clock in ("perf_counter", "process_time"):
            monkeypatch.setattr(time, clock, lambda: self.steps * self.STEP)


@pytest.mark.every
@pytest.mark.parametrize(("operation", "seconds"), [("lstm", 2.0), ("gpt", 2.0), ("switch_layer", 0.5)])
def test_the_work_of_a_whole_search_is_bounded(operation: str, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing explains these answers: every edit, every pair and all that comes near are tried until the end."""
    held = distorted.results(golden(), operation, "one element wrong")
    assert any(result.wrong for result in held)
    clock = Clock(monkeypatch)
    search.explained(held, "float64", seconds)
    assert seconds / 2 < clock.steps * Clock.STEP < seconds + weighing.LATER + 1


class Looks:
    """Seconds that are looks at the clock: whoever works for long without one is not bounded."""

    STEP = 1e-3

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(time, "perf_counter", self.look)
        monkeypatch.setattr(time, "process_time", lambda: self.count * self.STEP)

    def look(self) -> float:
        self.count += 1
        return self.count * self.STEP


@pytest.mark.every
def test_making_the_edits_takes_a_share_of_the_time_and_the_rest_are_made_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = distorted.results(golden(), "switch_layer", "one element wrong")
    wrong = next(result for result in held if result.wrong)
    proposals.made.cache_clear()
    seconds, clock = 4.0, Looks(monkeypatch)
    few = proposals.Proposals(wrong, values=True, right=frozenset(), end=clock.look() + seconds)
    assert clock.count * Looks.STEP < (proposals.MAKING + proposals.CHOOSING) * seconds + 0.1
    assert few.whole  # and those of the operation itself are among them
    assert any(edit.original is plain.called("switch_layer")[0] for edit in few.every)
    whole = proposals.Proposals(wrong, values=True, right=frozenset())
    assert len(few.every) < len(whole.every) / 2
    first = plain.called("switch_layer")[1]
    assert [edit.source for edit in proposals.made(first).so_far()] == [edit.source for edit in edits(first)]


@pytest.mark.every
def test_the_search_ends_with_its_time() -> None:
    """In seconds of this process, whatever else the machine does."""
    noise = numpy.random.default_rng(1)
    held = results("lstm", lambda x, h, c, *_, **__: (noise.normal(size=(*x.shape[:2], h.shape[-1])), c))
    start = time.process_time()
    search.explained(held, "float64", seconds=0.5)
    assert time.process_time() - start < 0.5 + weighing.LATER + 0.5  # an evaluation ends at its next step


@pytest.mark.one_in(16)
@pytest.mark.parametrize("how", [*distorted.DISTORTIONS, "a factor of each case"])
@pytest.mark.parametrize("operation", ["rms_norm", "adamw", "sample"])
def test_right_answers_that_are_distorted_at_random_get_no_name(operation: str, how: str) -> None:
    held = distorted.results(golden(), operation, how)
    found = search.explained(held, "float64", seconds=0.5)
    told = diagnosis.diagnosed(held, "float64", found=found)
    named = [line for result in told for line in result.diagnosis if isinstance(line, Explanation)]
    assert named == []


def test_an_edit_that_changes_nothing_would_explain_right_answers() -> None:
    """That is, the comparison can tell an edit from the text: most edits of attention change some answer."""
    case = golden().cases["ATT/square"]
    truth = plain.answer(case, "float64", {}, traced=False)
    assert truth is not None
    changed = 0
    sample = list(edits(plain.called("attention")[0]))[::7]
    for edit in sample:
        function = edit.function()
        assert function is not None
        other = plain.answer(case, "float64", {edit.original: function}, traced=False)
        changed += other is None or not equal(case, truth, other, "float64")
    assert changed > len(sample) / 2
