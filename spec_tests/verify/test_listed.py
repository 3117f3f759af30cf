"""Known mistakes as edits of the search: two of them at once, one beside an edit nobody listed, no idle one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.verify import corpus, diagnosis, explaining, listed, mutants, plain, reference, runner, search
from refllm.verify.adapter import Functions
from refllm.verify.edits import Edit, edits, source_of
from refllm.verify.explanation import NOTHING_KNOWN, Explanation, diff_of
from refllm.verify.imitations import KNOWN
from refllm.verify.loose import is_loose
from refllm.verify.mutants import Edited, planted

GOLDEN = corpus.load(corpus.folder(None))
LAYER_NORM = plain.text()["layer_norm"]
BY_ID = {mutant.id: mutant for mutant in mutants.MUTANTS}
SECONDS = 30.0


def results(operation: str, f: Callable[..., Any]) -> list[runner.Result]:
    cases = [case for case in GOLDEN.cases.values() if case.operation == operation]
    return list(runner.run(Functions("mine", {operation: f}, {}), cases, "float64", GOLDEN.C))


def told(operation: str, f: Callable[..., Any], seconds: float = SECONDS) -> list[runner.Result]:
    found = explaining.explained(results(operation, f), "float64", GOLDEN.C, seconds)
    return [result for result in found if result.wrong]


def penalised_twice(logits: Any, *, ids: Any, penalty: float) -> Any:
    """Subtracted, and of the last token alone."""
    last = numpy.broadcast_to(ids[..., -1:], (*logits.shape[:-1], 1))
    seen = (last == numpy.arange(logits.shape[-1])) & (last >= 0)
    return numpy.where(seen, logits - penalty, logits)


def smoothed_in_bits(logits: Any, *, targets: Any, ignore: int | None, smoothing: float, reduction: str) -> Any:
    """Without smoothing, and with the sum over the tokens for their mean."""
    plain_loss = reference.functions()["cross_entropy"]
    as_asked = "sum" if reduction == "mean" else reduction
    return plain_loss(logits, targets=targets, ignore=ignore, reduction=as_asked)[0]


@pytest.mark.parametrize(
    ("operation", "f"), [("repetition_penalty", penalised_twice), ("smoothed_cross_entropy", smoothed_in_bits)]
)
def test_two_known_mistakes_at_once_are_both_named(operation: str, f: Callable[..., Any]) -> None:
    found = told(operation, f)
    shown = [line for result in found for line in result.diagnosis[:1] if "two edits" in line]
    assert 2 * len(shown) > len(found), {result.case.id: result.diagnosis for result in found}
    assert "listed mistake" in shown[0]
    assert "no listed mistake" not in shown[0]


def all_over_all_steps(*, step: int, peak: float, warmup: int, total: int, floor: float) -> float:
    """A cosine that is known to be wrong, and a warm-up that would take all steps, which nobody listed."""
    if step < warmup:
        return peak * step / total
    if step >= total:
        return floor
    return floor + (peak - floor) * (1 + math.cos(math.pi * step / total)) / 2


def test_an_edit_that_nobody_listed_is_found_beside_a_known_mistake() -> None:
    found = told("warmup_cosine", all_over_all_steps)
    [line] = {result.diagnosis[0] for result in found}
    assert f"{len(found)} of {len(found)} wrong answers" in line
    assert "the listed mistake ADAMW/cosine-from-start and another" in line
    assert "+ return max_lr * step / total" in diff_of(line)


def test_a_known_mistake_in_few_words_is_the_same_mistake() -> None:
    """The function with the words that differ exchanged is the one with its lines exchanged."""
    for mutant in mutants.MUTANTS[::7]:
        if isinstance(mutant, Edited):
            whole = [each.edit.source for each in mutant.rewritten]
            assert [edit.source for edit in listed.as_edits(mutant)] == whole, mutant.id


def test_mistakes_of_one_line_stand_together_and_those_that_touch_do_not() -> None:
    divided, each_time, reversed_ = (BY_ID[f"REP/{name}"] for name in ("divided", "each-time", "reversed"))
    one, other, third = (listed.as_edits(each) for each in (divided, each_time, reversed_) if isinstance(each, Edited))
    both = listed.joined(one, other)
    assert both is not None
    assert "return where(seen, logits / penalty, logits)" in both[0].source
    assert "penalty = penalty **" in both[0].source
    assert listed.of_which(both) == (["REP/divided", "REP/each-time"], 0)
    assert listed.joined(one, third) is None


def _edit(line: str) -> Edit:
    return next(e for e in edits(LAYER_NORM) if line in e.diff())


def test_an_edit_that_changes_nothing_is_no_part_of_an_explanation() -> None:
    """In one function, and in two."""

    def unbiased(x: Any, g: Any, b: Any, *, eps: float) -> Any:
        c = x - x.mean(-1, keepdims=True)
        return g * c / numpy.sqrt((c * c).sum(-1, keepdims=True) / (x.shape[-1] - 1) + eps) + b

    needed = _edit("+ r = 1 / sqrt(sum(c * c) / (x.shape[-1] - 1) + eps)")
    at = source_of(LAYER_NORM).encode().index(b"y = g * n + b")
    idle = Edit(LAYER_NORM, ((at, at + len(b"y = g * n + b"), "y = b + g * n"),), 1.0, False)
    together = needed.beside(idle)
    assert together is not None
    looking = search._Search(results("layer_norm", unbiased), "float64", math.inf)
    alone = looking._weighed((needed,), False)
    assert alone is not None
    elsewhere = next(edits(plain.text()["softmax"]))
    for candidate in ((together,), (needed, elsewhere)):
        both = looking._weighed(candidate, False)
        assert both is not None
        assert both.explained == alone.explained
        assert looking._without_idle(both).edits == (needed,)


def test_a_number_that_the_answers_do_not_tell_is_no_explanation() -> None:
    """One token of one case is left out that stays: many numbers in the place of the share do that."""
    right = plain.operations()["min_p"]
    wrong = GOLDEN.cases["MINP/rows"].inputs["logits"]

    def nearly(logits: Any, *, share: float) -> Any:
        y = numpy.array(right(logits, share=share))
        if numpy.array_equal(logits, wrong):
            finite = numpy.argwhere(numpy.isfinite(y))
            place = min(finite, key=lambda at: y[tuple(at)] - y[tuple(at[:-1])].max())
            y[tuple(place)] = -numpy.inf
        return y

    for result in told("min_p", nearly):
        assert not any(isinstance(line, Explanation) and "found by search" in line for line in result.diagnosis)


def test_a_factor_is_told_by_real_numbers_and_not_by_choices() -> None:
    text = plain.text()["min_p"]
    doubled = Edit(text, ((0, 0, "# share * 2\n"),), 1.0, False)
    assert is_loose((doubled,), lambda edits: True)
    assert not is_loose((doubled,), lambda edits: False)
    assert not is_loose((Edit(text, ((0, 0, "# share\n"),), 1.0, False),), lambda edits: True)


def silu_of_another_slope(x: Any) -> Any:
    """A gate of 2 x, whose gradient is that of nothing: a product with another constant."""
    s = 1 / (1 + numpy.exp(-2 * x))
    return x * s, lambda dy: dy * (s + 1.702 * x * s * (1 - s))


def test_an_edit_that_gives_the_values_alone_is_told_as_that() -> None:
    found = told("silu", silu_of_another_slope)
    assert found
    for result in found:
        assert f"{len(found)} of {len(found)} wrong answers" in result.diagnosis[0]
        assert "in their values; not all gradients are those of the edit" in result.diagnosis[0]
        assert any("2" in line for line in diff_of(result.diagnosis[0]) if line.startswith("+"))


# --- caches ----------------------------------------------------------------------------------------------------------


def test_a_mistake_of_a_cache_is_named_where_nobody_asks_for_a_cache() -> None:
    """An implementation may keep keys and values always."""
    mutant = BY_ID["GEN/cache-position-restart"]
    right = reference.functions()["generate"]

    def always(p: Any, *, cache: bool, **how: Any) -> Any:
        with planted(mutant):  # type: ignore[arg-type]
            return right(p, cache=True, **how)

    found = told("generate", always, seconds=0)
    unasked = [result for result in found if not result.case.keywords["cache"]]
    assert unasked
    assert all(mutant.id in result.diagnosis[0] for result in unasked)
    assert mutant in KNOWN.of_caches(unasked[0].case)[1]


# --- words -----------------------------------------------------------------------------------------------------------


def _noise(x: Any) -> Any:
    return numpy.random.default_rng(x.size).normal(size=x.shape)


def test_what_nothing_explains_says_whether_all_was_tried() -> None:
    first = next(result for result in told("softmax", _noise, 0.05) if result.diagnosis)
    assert first.diagnosis[0].startswith(NOTHING_KNOWN)
    assert first.diagnosis[0].endswith(diagnosis.CUT)
    held = results("softmax", _noise)
    by_hand = list(diagnosis.diagnosed(held, "float64", found={}))
    assert any(line.endswith(diagnosis.TRIED) for result in by_hand for line in result.diagnosis)
