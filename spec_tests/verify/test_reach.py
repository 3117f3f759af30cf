"""Which tensors a function has a say in: found by a change of its numbers, and not told where it gives no numbers."""

from __future__ import annotations

from types import FunctionType
from typing import cast

from refllm.spec import masking, switch_layer, tensor_parallel
from refllm.spec.feed_forward import activated as of_feed_forward
from refllm.verify import corpus
from refllm.verify.reach import reach

activated, mask_words, slots_of, row_parallel_linear = (
    cast(FunctionType, f)
    for f in (of_feed_forward, masking.mask_words, switch_layer.slots_of, tensor_parallel.row_parallel_linear)
)
CASES = corpus.load(corpus.folder(None)).cases


def test_a_function_that_gives_ids_alone_may_have_a_say_in_everything() -> None:
    assert reach(CASES["MLM/mask-all"], mask_words, values=True) is None
    assert reach(CASES["MOE/layer-dropped"], slots_of, values=True) is None


def test_a_function_of_numbers_reaches_what_is_made_of_them() -> None:
    found = reach(CASES["MOE/layer-dropped"], activated, values=True)
    assert found is not None
    assert {name for name in CASES["MOE/layer-dropped"].outputs if name not in found} == {"balance"}


def test_a_function_that_is_not_called_reaches_nothing() -> None:
    assert reach(CASES["MLM/mask-all"], activated, values=True) == frozenset()


def test_zeros_throughout_may_be_made_by_any_function() -> None:
    """No factor changes them: the bias of a rank that has none."""
    case = CASES["PAR/row-last"]
    assert not case.gradients["b"].value.any()
    assert reach(case, row_parallel_linear, values=False) == frozenset(case.gradients)
