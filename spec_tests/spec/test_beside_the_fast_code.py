"""The plain text and the fast code are one function: models of several layers on floats, value and gradient; and the
gradient that a trace of the text finds is that of its hand-written pullback."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest

from refllm.models import bert, encoder_decoder, gpt, hybrid, llama, nnlm, recurrent_lm, switch
from refllm.numbers.traced import differentiated
from refllm.parameters import map_leaves, named_leaves
from refllm.verify import reference
from spec_tests.spec.composed import TEXT

FAST = reference.functions()
V, B, T = 13, 3, 7  # so that no size is another's

CONFIGS: dict[str, tuple[str, Any]] = {
    "gpt-2": ("gpt", gpt.Config(V, 9, layers=3, heads=3, width=12, hidden=20)),
    "gpt-post": (
        "gpt",
        gpt.Config(V, 9, layers=2, heads=2, width=8, hidden=10, norm="post", activation="relu", positions="sinusoidal",
                   tied=False, scaled_embedding=True),
    ),
    "llama": ("llama", llama.Config(V, 9, layers=3, heads=4, width=10, hidden=11, kv_heads=2, head_width=6)),
    "llama-tied": (
        "llama", llama.Config(V, 9, layers=1, heads=2, width=8, hidden=6, positions="rotary_interleaved", tied=True),
    ),
    "llama-alibi": ("llama", llama.Config(V, 9, layers=2, heads=3, width=6, hidden=6, positions="alibi")),
    "llama-relative": ("llama", llama.Config(V, 9, layers=2, heads=3, width=6, hidden=6, positions="relative")),
    "switch": ("switch", switch.Config(V, 9, layers=4, heads=2, width=6, hidden=8, experts=3, every=2, balance=0.5)),
    "lstm": ("recurrent_lm", recurrent_lm.Config(V, 9, layers=3, width=5, hidden=6, cell="lstm")),
    "rnn-tied": ("recurrent_lm", recurrent_lm.Config(V, 9, layers=1, width=6, hidden=6, cell="rnn", tied=True)),
    "nnlm": ("nnlm", nnlm.Config(V, 9, order=4, width=5, hidden=6, direct=True)),
    "hybrid": ("hybrid", hybrid.Config(V, 9, layers=2, heads=2, width=6, hidden=5, dropout=0.0)),
}  # fmt: skip
MODULES = {"gpt": gpt, "llama": llama, "switch": switch, "recurrent_lm": recurrent_lm, "nnlm": nnlm, "hybrid": hybrid}

Case = tuple[Callable[..., Any], Callable[..., Any], Any, dict[str, Any]]


def language_model(name: str) -> Case:
    """The loss as text and as fast code, parameters, and a batch of which some targets are ignored."""
    operation, config = CONFIGS[name]
    generator = numpy.random.default_rng(len(name))
    ids, targets = generator.integers(0, V, (2, B, T))
    targets[0, 2:4] = -100
    how = {"ids": ids, "targets": targets, "ignore": -100, "config": config.as_dict()}
    return TEXT[f"{operation}_loss"], FAST[f"{operation}_loss"], drawn(MODULES[operation], config, generator), how


def drawn(model: Any, config: Any, generator: Any) -> Any:
    return map_leaves(lambda x: x + 0.2 * generator.standard_normal(x.shape), model.initial(config, generator))


def translator(form: str) -> Case:
    config = {
        "2017": encoder_decoder.Config(
            V, 9, encoder_layers=2, decoder_layers=3, heads=2, head_width=3, width=6, hidden=8, scaled_embedding=True,
        ),
        "bart": encoder_decoder.Config(
            V, 9, encoder_layers=1, decoder_layers=1, heads=3, head_width=2, width=6, hidden=8, positions="learned",
            activation="gelu_erf", embedding_norm=True, tied=False,
        ),
        "t5": encoder_decoder.Config(
            V, 9, encoder_layers=2, decoder_layers=2, heads=2, head_width=5, width=6, hidden=8, norm="pre", rms=True,
            positions="relative", activation="gelu_tanh", gated=True, biases=False, buckets=6, farthest=7,
            tied=True, scaled_output=True,
        ),
    }[form]  # fmt: skip
    generator = numpy.random.default_rng(len(form))
    source, targets = generator.integers(0, V, (2, B, T))
    attention_mask = numpy.arange(T) < numpy.array([[T], [4], [1]])
    texts = {"source": source, "attention_mask": attention_mask, "targets": targets[:, :5]}
    how = {**texts, "start": 1, "ignore": -100, "smoothing": 0.1, "config": config.as_dict()}
    return TEXT["seq2seq_loss"], FAST["seq2seq_loss"], drawn(encoder_decoder, config, generator), how


OUTPUTS = ("masked", "pair", "classes", "span")


def encoder(output: str) -> Case:
    config = bert.Config(V, 9, layers=2, heads=3, width=6, hidden=8, outputs=OUTPUTS)
    generator = numpy.random.default_rng(len(output))
    p = drawn(bert, config, generator)
    ids, segments = generator.integers(0, V, (B, T)), generator.integers(0, 2, (B, T))
    attention_mask = (numpy.arange(T) < numpy.array([[T], [4], [1]]))[:, None, None, :]
    how = {"ids": ids, "segments": segments, "attention_mask": attention_mask, "output": output}
    how["config"] = {name: x for name, x in config.as_dict().items() if name != "outputs"}  # the heads are those of p
    return TEXT["bert"], FAST["bert"], p, how


ALL = {
    **{name: (language_model, name) for name in CONFIGS},
    "translator-2017": (translator, "2017"),
    "translator-t5": (translator, "t5"),
    **{f"encoder-{output}": (encoder, output) for output in ("hidden", *OUTPUTS)},
    "translator-bart": (translator, "bart"),
}


@pytest.fixture(params=list(ALL))
def case(request: Any) -> Case:
    make, name = ALL[request.param]
    return make(name)


def answers(f: Callable[..., Any], p: Any, how: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The value and the gradient, by name, for the cotangent that the value's shape draws."""
    y, back = f(p, **how)[:2]
    dy = numpy.random.default_rng(7).standard_normal(y.shape).astype(y.dtype)
    return {"y": y, **dict(named_leaves(back(dy)))}, y.dtype


def require_near(found: dict[str, Any], truth: dict[str, Any], share: float) -> None:
    assert found.keys() == truth.keys()
    for name, x in truth.items():
        largest = max(abs(x).max(), 1e-3 * max(abs(z).max() for z in truth.values()))
        numpy.testing.assert_allclose(found[name], x, rtol=0, atol=share * largest, err_msg=name)


def test_text_and_fast_code_agree_in_float64(case: Case) -> None:
    text, fast, p, how = case
    found, truth = answers(text, p, how)[0], answers(fast, p, how)[0]
    require_near(found, truth, 1e-12)


def test_text_and_fast_code_agree_in_float32(case: Case) -> None:
    """And the text makes nothing of another dtype."""
    text, fast, floats, how = case
    p = map_leaves(lambda x: x.astype("float32"), floats)
    found, truth = answers(text, p, how)[0], answers(fast, p, how)[0]
    assert {x.dtype for x in found.values()} == {numpy.dtype("float32")}
    require_near(found, truth, 1e-12 * 2**29)


def test_a_trace_of_the_text_finds_the_gradient_of_its_pullback(case: Case) -> None:
    text, _, p, how = case
    require_near(answers(differentiated(text), p, how)[0], answers(text, p, how)[0], 1e-12)
