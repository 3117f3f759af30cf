"""Laws of generation with a carried state: alone, and beside keys and values."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.generation.generate import generate
from refllm.generation.state import CarriedState
from refllm.models import hybrid, nnlm, recurrent_lm
from spec_tests.gradients import random_tree

V, S = 7, 6
MODELS: dict[str, tuple[ModuleType, Any]] = {
    "RNN": (recurrent_lm, recurrent_lm.Config(vocabulary=V, context=S, width=3, hidden=5, cell="rnn")),
    "LSTM": (recurrent_lm, recurrent_lm.Config(vocabulary=V, context=S, width=4, hidden=4, tied=True)),
    "NNLM": (nnlm, nnlm.Config(vocabulary=V, context=S, order=4, width=3, hidden=5, direct=True)),
    "NNLM of bigrams": (nnlm, nnlm.Config(vocabulary=V, context=S, order=2, width=3, hidden=5)),
}
HYBRID = hybrid, hybrid.Config(vocabulary=V, context=S, heads=2, width=4, hidden=3)
state_alone = pytest.mark.parametrize("subject", MODELS.values(), ids=MODELS)
every_model = pytest.mark.parametrize("subject", [*MODELS.values(), HYBRID], ids=[*MODELS, "hybrid"])


def parameters(subject: tuple[Any, Any]) -> Any:
    model, config = subject
    return random_tree(model.shapes(config), seed=0, scale=0.8)


def prompts(B: int, T: int, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).integers(0, V, (B, T))


def written(subject: tuple[Any, Any], ids: Any, new_tokens: int, **changes: Any) -> tuple[Any, Any]:
    """The tokens (B, L) and their logits (B, L, V)."""
    how: dict[str, Any] = {
        "model": subject[0], "padding": None, "temperature": 1.0, "top_k": None, "top_p": None, "uniforms": None,
        "cache": True, **changes,
    }  # fmt: skip
    steps = list(generate(parameters(subject), ids=ids, config=subject[1], new_tokens=new_tokens, **how))
    return numpy.stack([tokens for tokens, _ in steps], axis=1), numpy.stack([logits for _, logits in steps], axis=1)


def next_logits(subject: tuple[Any, Any], text: Any) -> Any:
    model, config = subject
    return model.forward(parameters(subject), ids=text, config=config, dropout_mask=None, cache=None)[0][:, -1]


@state_alone
@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("T", [1, 4, 2 * S])
def test_a_carried_state_reads_the_whole_text_however_long(subject: tuple[Any, Any], cache: bool, T: int) -> None:
    """The prompt may be longer than the context, and nothing is forgotten where the context would be full."""
    text = prompts(2, T)
    uniforms = numpy.random.default_rng(0).random((2, 2 * S))
    tokens, logits = written(subject, text, 2 * S, uniforms=uniforms, cache=cache)
    for step in range(2 * S):
        numpy.testing.assert_allclose(logits[:, step], next_logits(subject, text), rtol=1e-10, atol=1e-11)
        text = numpy.concatenate([text, tokens[:, step : step + 1]], axis=1)


@pytest.mark.parametrize("cache", [True, False])
def test_the_hybrids_window_slides_and_its_state_begins_again_with_it(cache: bool) -> None:
    text = prompts(2, 4)
    tokens, logits = written(HYBRID, text, 15, cache=cache)
    for step in range(15):
        if text.shape[1] > S:
            text = text[:, -(S // 2) :]
        numpy.testing.assert_allclose(logits[:, step], next_logits(HYBRID, text), rtol=1e-10, atol=1e-11)
        text = numpy.concatenate([text, tokens[:, step : step + 1]], axis=1)


@every_model
@given(padding=st.lists(st.integers(0, 4), min_size=3, max_size=3), cache=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=10)
def test_a_row_of_a_ragged_batch_is_that_row_alone(
    subject: tuple[Any, Any], padding: list[int], cache: bool, seed: int
) -> None:
    ids, uniforms = prompts(3, 5, seed), numpy.random.default_rng(seed).random((3, 3))
    together, _ = written(subject, ids, 3, padding=numpy.array(padding), uniforms=uniforms, cache=cache)
    for row, n in enumerate(padding):
        alone, _ = written(subject, ids[row : row + 1, n:], 3, uniforms=uniforms[row : row + 1], cache=cache)
        assert together[row].tolist() == alone[0].tolist()


@every_model
def test_after_the_prompt_the_model_is_given_one_token_at_a_time(subject: tuple[Any, Any]) -> None:
    model, _ = subject
    seen: list[list[int]] = []

    def hidden_states(p: Any, *, ids: Any, **rest: Any) -> Any:
        seen.append(ids[0].tolist())
        return model.hidden_states(p, ids=ids, **rest)

    names = ("forward", "cache_shape", "state_shapes", "head")
    watched = {name: getattr(model, name) for name in names if hasattr(model, name)}
    ids = prompts(1, 3)
    tokens, _ = written(subject, ids, 3, model=SimpleNamespace(hidden_states=hidden_states, **watched))
    assert seen == [ids[0].tolist(), [tokens[0, 0]], [tokens[0, 1]]]


@every_model
def test_the_prompt_and_the_parameters_are_only_read(subject: tuple[Any, Any]) -> None:
    ids, padding = prompts(2, 3), numpy.array([0, 2])
    ids.setflags(write=False)
    padding.setflags(write=False)
    written(subject, ids, 12, padding=padding)


@state_alone
def test_an_empty_prompt_is_refused(subject: tuple[Any, Any]) -> None:
    with pytest.raises(ValueError, match="generate: the prompt must have at least 1 token, not 0"):
        written(subject, prompts(1, 0), 1)


def test_a_bidirectional_model_generates_nothing() -> None:
    """Erratum E9."""
    config = hybrid.Config(vocabulary=V, context=S, heads=2, width=4, hidden=3, bidirectional=True)
    with pytest.raises(UserError, match="a bidirectional model sees the future"):
        written((hybrid, config), prompts(1, 2), 1)


def test_a_state_begins_with_zeros_and_knows_which_places_hold_a_token() -> None:
    state = CarriedState(
        [{"h": (2,)}, {"h": (3,)}], batch=2, padding=numpy.array([3, 0]), like=numpy.zeros(1, "float32")
    )
    assert [(layer["h"].shape, layer["h"].dtype) for layer in state.layers] == [
        ((2, 2), "float32"),
        ((2, 3), "float32"),
    ]
    assert not any(layer["h"].any() for layer in state.layers)
    pieces = [state.advance(2), state.advance(1), state.advance(2)]
    assert numpy.concatenate(pieces, axis=1).tolist() == [[False] * 3 + [True] * 2, [True] * 5]  # type: ignore[arg-type]
    assert CarriedState([], batch=2, padding=None, like=numpy.zeros(1)).advance(3) is None
