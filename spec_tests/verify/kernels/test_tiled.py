"""Faults of attention in tiles that are no rows of the bank are named by edits of its text, and right loops are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.backend import Array
from refllm.numbers import plans
from refllm.verify import corpus, plain
from refllm.verify.adapter import Functions
from refllm.verify.explanation import Explanation
from refllm.verify.kernels import flash, loops, screens, tiled
from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.matching import Given, tensors
from refllm.verify.runner import Result
from refllm.verify.sized import cases, judge
from refllm.verify.sized.recognised import Recognised
from spec_tests.verify.kernels.tile_loops import attention_in_tiles

KNOWN = cases.load(corpus.folder(None))
TEXT = plain.operations()
SMALL = ("3x32x32x40-normal-causal", "5x33x33x64-normal-causal", "2x31x31x32-normal")
LONG = ("3x1x1025x64-normal-causal", "2x65x129x40-normal-causal", "2x31x31x32-normal")
MASKED = ("3x2x129x129x64-padded", "2x31x31x32-normal")


def every_second(factor: Array, rise: Array, number: int) -> Array:
    return factor if number % 2 == 0 else numpy.ones_like(factor)


def only_if_far(factor: Array, rise: Array, number: int) -> Array:
    return numpy.where(rise > 1, factor, 1)


def aligned_at_first(may: Array, rows: Array, keys: Array, causal: bool) -> Array:
    return may & (keys < rows + 1) if causal else may


def unmasked(may: Array, rows: Array, keys: Array, causal: bool) -> Array:
    return may | causal


def of_last_batch(mask: Array, shape: tuple[int, ...]) -> Array:
    return mask[-1:] if mask.ndim == len(shape) else mask


def averaged(parts: list[Any]) -> Array:
    mean: Array = sum(y for y, _ in parts) / len(parts)
    return mean


def without_maximum(lse: Array, shift: Array) -> Array:
    return lse - shift


FAULTS: dict[str, tuple[Callable[..., Any], tuple[str, ...], str]] = {
    "rescaled at every second tile": (attention_in_tiles(rescale=every_second), LONG, "at every second tile of keys, "),
    "rescaled if it rises by 1": (attention_in_tiles(keys=32, rescale=only_if_far), LONG, "rises by more than 1"),
    "gradient with another mask": (
        attention_in_tiles(allowed_back=aligned_at_first), LONG, "(attention/causal-top-left-",
    ),
    "gradient without a mask": (
        attention_in_tiles(allowed_back=unmasked), SMALL, "recomputes its weights with no causal mask, in all tiles",
    ),
    "mask of the last batch": (attention_in_tiles(mask=of_last_batch), MASKED, "the mask of the last batch for all"),
    "parts that are averaged": (
        attention_in_tiles(keys=128, merged=averaged), LONG, "averaged, without their log-sum-exp",
    ),
    "log-sum-exp without maximum": (attention_in_tiles(lse=without_maximum), SMALL, "log-sum-exp without the maximum"),
}  # fmt: skip


def told(operation: str, function: Callable[..., Any], ids: tuple[str, ...]) -> list[Result]:
    plan, mine = plans.plan("eager", "float32"), Functions("mine", {operation: function}, {}, ("float64", "float32"))
    chosen = [case for id, case in KNOWN.items() if case.operation == operation and id.endswith(ids)]
    assert len(chosen) == len(ids)
    watched = Recognised("float32", plan, 10)
    with numpy.errstate(all="ignore"):
        found = list(judge.run(mine, chosen, "float32", plan, seen=watched.look))
    return [result for result in watched.explained(found) if result.wrong]


@pytest.mark.every
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_loops_is_named_in_every_case_that_it_gets_wrong(name: str) -> None:
    function, ids, said = FAULTS[name]
    found = told("attention", function, ids)
    assert found
    assert all(any(said in line for line in result.diagnosis) for result in found), [r.diagnosis for r in found]


@pytest.mark.every
def test_tiles_before_a_window_that_are_left_out_are_named() -> None:
    def late(q: Array, k: Array, v: Array, *, window: int, allowed: Array | None) -> Any:
        T, S = q.shape[-2], k.shape[-2]
        first = numpy.maximum(numpy.minimum((numpy.arange(T) // 64 + 1) * 64, T) + S - T - window, 0) // 64 * 64
        read = numpy.arange(S) >= first[:, None]
        allowed = read if allowed is None else read & allowed
        return TEXT["sliding_window_attention"](q, k, v, window=window, allowed=allowed)

    found = told("sliding_window_attention", late, ("3x129x129x40-33",))
    assert [any("skips-by-last-query" in line for line in result.diagnosis) for result in found] == [True]


@pytest.mark.parametrize("sizes", [(64, 64), (48, 80)])
def test_right_loops_pass(sizes: tuple[int, int]) -> None:
    assert told("attention", attention_in_tiles(*sizes), SMALL) == []


@pytest.mark.every
def test_what_no_edit_explains_is_not_named() -> None:
    def attention(q: Array, k: Array, v: Array, *, causal: bool, allowed: Array | None) -> Any:
        y, back = TEXT["attention"](q, k, v, causal=causal, allowed=allowed)
        return y, lambda dy: [x * numpy.cos(numpy.arange(x.size)).reshape(x.shape).astype(x.dtype) for x in back(dy)]

    found = told("attention", attention, SMALL[:1])
    assert found
    assert not [line for result in found for line in result.diagnosis if isinstance(line, Explanation)]


@pytest.mark.every
@pytest.mark.parametrize("which", ["first", "mean", "every second"])
def test_heads_that_share_a_key_and_are_not_added_up_are_named(which: str) -> None:
    repeat_heads = TEXT["repeat_heads"]

    def some(k: Array, *, groups: int) -> Any:
        y, _ = repeat_heads(k, groups=groups)

        def back(dy: Array) -> Array:
            each = dy.reshape(*dy.shape[:-3], -1, groups, *dy.shape[-2:])
            chosen = {"first": each[..., :1, :, :], "every second": each[..., ::2, :, :]}.get(which, each / groups)
            dk: Array = chosen.sum(axis=-3)
            return dk

        return y, back

    def grouped_attention(*arguments: Any, **how: Any) -> Any:
        with plain.exchanged({loops.OF_THE_TEXT["repeat_heads"]: some}):
            return TEXT["grouped_attention"](*arguments, **how)

    found = told("grouped_attention", grouped_attention, ("3x33-7-1x32-rotary",))
    said = {"first": "first-head-of-group", "mean": "mean-of-group", "every second": "second-heads-of-group"}[which]
    assert any(said in line for result in found for line in result.diagnosis), [r.diagnosis for r in found]


# --- the edits themselves ---------------------------------------------------------------------------------------------


def test_every_edit_is_python_and_says_what_it_is() -> None:
    assert len(tiled.edits()) > 400
    for mistake in (*tiled.edits(), *tiled.single()):
        assert mistake.codes
        assert mistake.about.partition(" ")[0] in ("a", "the", "attention", "query", "key")
    said = [(m.about, m.within) for m in tiled.edits()]
    assert len(set(said)) == len(said)


@pytest.mark.every
def test_nearly_every_edit_of_a_family_changes_an_answer() -> None:
    generator = numpy.random.default_rng(1)
    asked = []
    for T, S, size in ((21, 29, 2), (29, 29, 3), (29, 21, 2)):
        q, k, v, dy = (generator.normal(size=(2, 3, n, 72)) * size for n in (T, S, S, T))
        mask = generator.random((2, 1, T, S)) < 0.6
        mask[0, :, T // 2, :] = mask[1, :, :, :9] = False
        packed = numpy.arange(T)[:, None] // 9 == numpy.arange(S) // 9
        asked += [((q, k, v), dy, {"causal": c, "allowed": m}) for c in (True, False) for m in (None, mask, packed)]
    q, k, v, dy = (generator.normal(size=(1, 1, n, 72)) for n in (3, 1100, 1100, 3))  # for parts of up to 1,024 keys
    asked.append(((q, k, v), dy, {"causal": False, "allowed": None}))
    q, k, v, dy = (generator.normal(size=(1, 1, 4, 260)) for _ in range(4))  # and for heads of more than 256
    asked.append(((q, k, v), dy, {"causal": False, "allowed": None}))
    same = []
    for mistake in tiled.edits():
        if mistake.operation == "attention" and all(equal(mistake, *each) for each in asked):
            same.append(mistake.about)
    assert not same, "\n".join(same)


def equal(mistake: Mistake, arrays: tuple[Array, ...], dy: Array, how: dict[str, Any]) -> bool:
    with numpy.errstate(all="ignore"):
        mine = loops.attention(mistake, (("TILE", 8), ("ROWS", 5)))
        (y, back), (truth, true_back) = mine(*arrays, **how), flash.attention(*arrays, **how)
        pairs = [(y, truth), *zip(back(dy), true_back(dy), strict=True)]
    return all(numpy.allclose(one, other, rtol=1e-9, atol=1e-9) for one, other in pairs)


@pytest.mark.every
def test_the_screen_lets_every_mistake_through_that_explains() -> None:
    """A mistake is asked of a few places of one head first: for its own answer, that says yes."""
    case = KNOWN["ATT/kernel-attention-5x33x33x64-normal-causal"].case()
    plan = plans.plan("eager", "float32")
    for mistake in tiled.edits()[:: len(tiled.edits()) // 40]:
        found = loops.answer(mistake, (), case, "float64") if mistake.operation == "attention" else None
        if found is None:
            continue
        text = judge.Text(case, plan, gradients=True)
        given = Given(tensors(found), text.of, "float32", plan)
        wrong = {n: off for n in given.tensors if (off := given.wrong(n)).any()}
        if wrong and (not mistake.gradients_alone or "outputs.y" not in wrong):
            assert screens.Screen(case, given, wrong).may(mistake, ()), mistake.about
