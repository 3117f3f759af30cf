"""A wrong port is told where it is wrong and by which mistake; a right one passes."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from refllm.verify.ports import places
from refllm.verify.ports.mistakes import habits
from refllm.verify.ports.search import searched
from spec_tests.verify.ports.models import CONFIGS

SECONDS = 60.0
COMMON = ("gpt2", "gemma2", "bert")  # of which every run tries a right port


class Wrong(NamedTuple):
    """A port, the operation that is to be named, words of the mistake, and whether it gives values on its way."""

    model: str
    mistake: str
    operation: str
    words: str
    taps: bool = False


QUICK = [
    Wrong("llama3", "rope neighbours @1", "rotary", "pairs of neighbours", taps=True),
    Wrong("bert", "padding not masked", "attention mask and softmax", "mask of padding is ignored"),
]
PORTS = [
    Wrong("gpt2", "positions from 1", "embedding", "positions begin at 1"),
    Wrong("gpt2", "gelu erf", "activation", "with erf"),
    Wrong("gpt2", "gelu quick", "activation", "1.702"),
    Wrong("gpt2", "eps 1e-6", "norm 1 of the layer", "1e-06"),
    Wrong("gpt2", "output map transposed", "output map of attention", "transposed"),
    Wrong("gpt2", "qkv per head", "map of the queries", "head"),
    Wrong("gpt2", "qkv bias missing", "map of the queries", "bqkv is left out"),
    Wrong("gpt2", "variance of C - 1", "norm 1 of the layer", "C - 1"),
    Wrong("gpt2", "key and value exchanged", "map of the keys", "q, v, k"),
    Wrong("gpt2", "causal mask missing", "attention mask and softmax", "causal"),
    Wrong("gpt2", "causal mask missing @1", "attention mask and softmax", "causal"),
    Wrong("gpt2", "scale missing", "attention scores", "not divided"),
    Wrong("gpt2", "scale by width", "attention scores", "x.shape[-1]"),
    Wrong("gpt2", "residual missing", "residual", "residual"),
    Wrong("gpt2", "last norm missing", "last norm", "last norm is left out"),
    Wrong("gpt2 untied", "tied", "output layer", "the output layer is the embedding"),
    Wrong("llama3", "rope neighbours", "rotary", "pairs of neighbours"),
    Wrong("llama3", "rope angles in pairs", "rotary", "repeated in pairs"),
    Wrong("llama3", "rope other way", "rotary", "other way"),
    Wrong("llama3", "rope theta 10000", "rotary", "10000"),
    Wrong("llama3", "rope scaling missing", "rotary", "factor"),
    Wrong("llama3", "llama 3 without its middle", "rotary", "spec/rotary_scaling.py"),
    Wrong("llama3", "keys not turned", "rotary", "keys are not turned"),
    Wrong("llama3", "key heads tiled", "attention scores", "tiled"),
    Wrong("llama3", "key heads tiled @2", "attention scores", "tiled"),
    Wrong("llama3", "eps 1e-5", "norm 1 of the layer", "1e-05"),
    Wrong("llama3", "gate and up exchanged", "map of the gate", "exchanged"),
    Wrong("mistral", "window one wider", "attention mask and softmax", "window has 6 keys"),
    Wrong("mistral", "window missing", "attention mask and softmax", "window is left out"),
    Wrong("qwen2", "qkv bias missing", "map of the queries", "biases of the maps are left out"),
    Wrong("qwen3", "qk norm missing", "rotary", "norms of queries and keys"),
    Wrong("gemma2", "gain without 1", "norm 1 of the layer", "1 + it is right"),
    Wrong("gemma2", "embedding not scaled", "embedding", "root of the width"),
    Wrong("gemma2", "score cap missing", "attention scores", "cap of the scores"),
    Wrong("gemma2", "logit cap missing", "output layer", "cap of the logits"),
    Wrong("gemma2", "scale by the heads width", "attention scores", "a head's width"),
    Wrong("gemma2", "norms after missing", "residual", "norms after"),
    Wrong("gemma2", "gelu erf", "activation", "with erf"),
    Wrong("bert", "gelu tanh", "activation", "with tanh"),
    Wrong("bert", "eps 1e-5", "embedding", "1e-05"),
    Wrong("bert", "positions from 1", "embedding", "positions begin at 1"),
    Wrong("bert", "segments missing", "embedding", "segment is left out"),
    Wrong("bert", "norm before the sum", "norm 1 of the layer", "before the sum"),
    Wrong("bert", "bias of the output missing", "output layer", "masked.bias is left out"),
    Wrong("bert", "padding not masked @1", "attention mask and softmax", "mask of padding is ignored"),
    Wrong("bert classes", "tanh missing", "pooler", "tanh"),
    Wrong("bert classes", "pooled from the last", "pooler", "last token"),
    Wrong("t5", "scores scaled", "attention scores", "divided by the root"),
    Wrong("t5", "distances missing", "attention scores", "bias by distance"),
    Wrong("t5", "decoder with the buckets of the encoder", "attention scores", "bidirectional"),
    Wrong("t5", "padding not masked", "attention mask and softmax", "mask of padding is ignored"),
    Wrong("t5", "memory's padding not masked", "cross-attention mask and softmax", "cross-attention ignores"),
    Wrong("t5", "output not scaled", "output layer", "not divided by the root"),
    Wrong("t5", "mean subtracted", "norm 1 of the layer", "mean is subtracted"),
    Wrong("t5 gated", "gelu erf", "activation", "with erf"),
]


def named(published: Any, wrong: Wrong) -> None:
    model = published(wrong.model)
    answers = model.answers(wrong.mistake, taps=wrong.taps)
    assert any(answer.wrong for answer in answers)
    found = searched(model.program, model.p, {}, answers, SECONDS)
    assert found.complete
    [one] = found.found
    told = " ".join([one.candidate.said, *(line for place, lines in one.candidate.lines for line in (place, *lines))])
    others = " ".join(other.said + str(other.lines) for other in one.others)
    assert wrong.words in f"{told} {others}"
    assert places.operation(one.first, model.program) == wrong.operation
    _, only, layer = wrong.mistake.partition(" @")
    layers = [n for n in one.places if model.program.steps[n].kind.endswith("layer")]
    if only:
        assert [model.program.steps[n].place for n in layers] == [f"layers.{layer}"]
    elif layers:
        assert one.everywhere


@pytest.mark.parametrize("wrong", QUICK, ids=lambda w: f"{w.model}, {w.mistake}")
def test_a_wrong_port_is_told_its_mistake_and_where_it_is(published: Any, wrong: Wrong) -> None:
    named(published, wrong)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", PORTS, ids=lambda w: f"{w.model}, {w.mistake}")
def test_every_wrong_port_is_told_its_mistake(published: Any, wrong: Wrong) -> None:
    """By its logits alone, and by the values on its way."""
    named(published, wrong)
    named(published, wrong._replace(taps=True))


@pytest.mark.parametrize(
    "name", [name if name in COMMON else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGS]
)
def test_a_right_port_passes(published: Any, name: str) -> None:
    answers = published(name).answers("", taps=True)
    assert all(answer.right and not answer.unknown for answer in answers)
    assert max(one.far for answer in answers for one in answer.compared.values()) > 0.01  # or nothing is compared


def test_every_habit_stands_in_the_text_and_is_python() -> None:
    for function, old, new, said in habits.HABITS:
        assert habits.edited(function, old, new, said).function() is not None, said  # type: ignore[arg-type]
