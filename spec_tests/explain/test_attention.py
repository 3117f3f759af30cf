"""Laws of the weights of attention. (EXPLAIN)"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.blocks.self_attention import self_attention, self_attention_shapes
from refllm.explain.attention import attention_maps, attention_weights
from refllm.models import bert, encoder_decoder, gpt, hybrid, llama, recurrent_lm, switch
from refllm.ops.attention import attention, biased_attention
from refllm.spec import attention as text
from refllm.watching import watched
from spec_tests.gradients import random_tree

RANDOM = numpy.random.default_rng(3)
SIZES: dict[str, Any] = {"vocabulary": 11, "context": 8, "heads": 2, "width": 8, "hidden": 8, "dropout": 0.0}
IDS = RANDOM.integers(0, 11, (2, 6))
INSIDE = numpy.arange(6) < numpy.array([6, 4])[:, None]


def _decoder(model: Any, **changes: Any) -> Callable[[], Any]:
    known = {field.name for field in fields(model.Config)}
    config = model.Config(**{name: size for name, size in SIZES.items() if name in known}, **changes)
    p = random_tree(model.shapes(config), seed=1)
    return lambda: model.forward(p, ids=IDS, config=config, dropout_mask=None, cache=None)


def _bert() -> Any:
    config = bert.Config(**SIZES, layers=2, outputs=())
    p = random_tree(bert.shapes(config), seed=1)
    mask = INSIDE[:, None, None, :]
    return bert.encode(p, ids=IDS, segments=0 * IDS, attention_mask=mask, config=config, dropout_mask=None)


def _encoder_decoder(positions: str) -> Callable[[], Any]:
    config = encoder_decoder.Config(**SIZES, encoder_layers=2, decoder_layers=1, head_width=4, positions=positions)
    p = random_tree(encoder_decoder.shapes(config), seed=1)
    return lambda: encoder_decoder.forward(
        p, source=IDS, attention_mask=INSIDE, ids=IDS[:, :5], config=config, dropout_mask=None
    )


MODELS: dict[str, tuple[Callable[[], Any], list[bool]]] = {  # and which of its attentions are causal
    "gpt": (_decoder(gpt, layers=2), [True, True]),
    "switch": (_decoder(switch, layers=2, experts=2), [True, True]),
    "llama": (_decoder(llama, layers=2, kv_heads=1), [True, True]),
    "llama alibi": (_decoder(llama, layers=1, positions="alibi"), [True]),
    "hybrid": (_decoder(hybrid, layers=1), [True]),
    "bert": (_bert, [False, False]),
    "encoder_decoder": (_encoder_decoder("sinusoidal"), [False, False, True, False]),
    "t5": (_encoder_decoder("relative"), [False, False, True, False]),
}


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_distributions_that_reproduce_what_the_layer_computed(name: str) -> None:
    forward, causal = MODELS[name]
    with watched() as seen:
        forward()
    maps = attention_maps(forward)
    assert [one.causal for one in seen] == causal
    assert len(maps) == len(seen)
    for weights, one in zip(maps, seen, strict=True):
        assert weights.shape == (*one.q.shape[:-1], one.k.shape[-2])
        assert (weights >= 0).all()
        numpy.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-12)
        numpy.testing.assert_allclose(weights @ one.v, one.y, atol=1e-12)
        if one.causal:
            assert (numpy.triu(weights, 1) == 0).all()


def test_padding_gets_no_weight() -> None:
    for weights in attention_maps(_bert):
        assert (weights[1, :, :, 4:] == 0).all()
        assert (weights[0] > 0).all()


@given(
    st.integers(1, 4), st.integers(1, 5), st.integers(1, 3), st.booleans(), st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
def test_weights_are_the_softmax_of_the_scores(
    T: int, past: int, D: int, causal: bool, biased: bool, seed: int
) -> None:
    """Those of the plain text: what it gives with the unit vectors as values. S > T as with a cache."""
    random, S = numpy.random.default_rng(seed), T + past
    q, k, v = (random.standard_normal((2, n, D)) for n in (T, S, S))
    r = random.standard_normal((2, T + S - 1))
    with watched() as seen:
        if biased:
            biased_attention(q, k, v, r, causal=causal, attention_mask=None)
        else:
            attention(q, k, v, causal=causal, attention_mask=None)
    units = numpy.broadcast_to(numpy.eye(S), (2, S, S))
    how: dict[str, Any] = {"causal": causal, "attention_mask": None}
    P = (text.biased_attention(q, k, units, r, **how) if biased else text.attention(q, k, units, **how))[0]
    numpy.testing.assert_allclose(attention_weights(seen[0]), P, atol=1e-12)


def test_who_looks_on_changes_nothing() -> None:
    x, p = RANDOM.standard_normal((2, 5, 8)), random_tree(self_attention_shapes(8), seed=2)
    dy = RANDOM.standard_normal(x.shape)

    def bits() -> list[bytes]:
        y, back = self_attention(x, p, heads=2, causal=True, attention_mask=None, cache=None)
        dx, dp = back(dy)
        return [y.tobytes(), dx.tobytes(), *(dp[name].tobytes() for name in p)]

    alone = bits()
    with watched() as seen:
        assert bits() == alone
    assert len(seen) == 1
    bits()
    assert len(seen) == 1, "an onlooker that has left still sees"


def test_an_onlooker_sees_its_own_thread_alone_and_the_inner_one_sees_instead_of_the_outer() -> None:
    q = numpy.ones((1, 1, 2))
    with watched() as outer:
        other = threading.Thread(target=lambda: attention(q, q, q, causal=False, attention_mask=None))
        other.start()
        other.join()
        with watched() as inner:
            attention(q, q, q, causal=False, attention_mask=None)
        assert (len(outer), len(inner)) == (0, 1)


def test_a_model_without_attention_has_no_maps() -> None:
    assert attention_maps(_decoder(recurrent_lm, layers=1)) == []
