"""Laws of the loop of generation, with and without the cache. (GEN, E6)"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refllm.generation.cache import KeyValueCache
from refllm.generation.generate import generate
from refllm.generation.sampling import choose
from refllm.models import gpt
from refllm.models.output import head
from refllm.ops.linear import matmul
from refllm.parameters import Tree
from spec_tests.gradients import random_tree

V = 7
CONFIGS = {
    "GPT-2": gpt.Config(vocabulary=V, context=8, layers=2, heads=2, width=8, hidden=12),
    "2017": gpt.Config(
        vocabulary=V, context=8, layers=2, heads=2, width=8, hidden=12, norm="post", activation="relu",
        positions="sinusoidal", tied=False,
    ),
}  # fmt: skip
every_model = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def parameters(config: gpt.Config) -> Tree:
    return random_tree(gpt.shapes(config), seed=0, scale=0.6)


def prompts(B: int, T: int, seed: int = 0) -> Any:
    return numpy.random.default_rng(seed).integers(0, V, (B, T))


def written(config: gpt.Config, ids: Any, new_tokens: int, **changes: Any) -> tuple[Any, Any]:
    """The tokens (B, L) and their logits (B, L, V)."""
    how: dict[str, Any] = {
        "model": gpt, "padding": None, "temperature": 1.0, "top_k": None, "top_p": None, "uniforms": None,
        "cache": True, **changes,
    }  # fmt: skip
    steps = list(generate(parameters(config), ids=ids, config=config, new_tokens=new_tokens, **how))
    return numpy.stack([tokens for tokens, _ in steps], axis=1), numpy.stack([logits for _, logits in steps], axis=1)


def next_logits(config: gpt.Config, text: Any) -> Any:
    return gpt.forward(parameters(config), ids=text, config=config, dropout_mask=None, cache=None)[0][:, -1]


@every_model
@pytest.mark.parametrize("cache", [True, False])
@given(T=st.integers(1, 4), seed=st.integers(0, 99))
def test_greedy_is_the_chain_of_most_probable_tokens(config: gpt.Config, cache: bool, T: int, seed: int) -> None:
    """Also erratum E6: the first new token comes from the distribution after the last token of the prompt, and every
    token is embedded once it is there, none is skipped."""
    text = prompts(2, T, seed)
    tokens, _ = written(config, text, 4, cache=cache)
    for step in range(4):
        best = next_logits(config, text).argmax(axis=-1)
        assert tokens[:, step].tolist() == best.tolist()
        text = numpy.concatenate([text, best[:, None]], axis=1)


@every_model
def test_the_first_step_embeds_the_last_token_of_the_prompt(config: gpt.Config) -> None:
    """Erratum E6, seen from outside: which tokens the model is given, and when."""
    seen: list[list[int]] = []

    def hidden_states(p: Tree, *, ids: Any, **rest: Any) -> Any:
        seen.append(ids[0].tolist())
        return gpt.hidden_states(p, ids=ids, **rest)

    model = SimpleNamespace(forward=gpt.forward, hidden_states=hidden_states, head=head, cache_shape=gpt.cache_shape)
    ids = prompts(1, 3)
    tokens, logits = written(config, ids, 3, model=model)
    assert seen == [ids[0].tolist(), [tokens[0, 0]], [tokens[0, 1]]]
    numpy.testing.assert_allclose(logits[:, 0], next_logits(config, ids), rtol=1e-12)


@every_model
@given(
    T=st.integers(1, 8),
    new=st.integers(1, 20),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
    top_k=st.none() | st.integers(1, V),
    top_p=st.none() | st.sampled_from([0.5, 0.9]),
    seed=st.integers(0, 99),
)
@settings(max_examples=10)
def test_the_cache_changes_no_token_not_even_when_the_window_slides(
    config: gpt.Config, T: int, new: int, temperature: float, top_k: int | None, top_p: float | None, seed: int
) -> None:
    how = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    uniforms = numpy.random.default_rng(seed).random((2, new))
    with_cache, without = (
        written(config, prompts(2, T, seed), new, **how, uniforms=uniforms, cache=cache) for cache in (True, False)
    )
    assert with_cache[0].tolist() == without[0].tolist()
    numpy.testing.assert_allclose(with_cache[1], without[1], rtol=1e-10, atol=1e-11)


@every_model
@given(padding=st.lists(st.integers(0, 4), min_size=3, max_size=3), cache=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=10)
def test_a_row_of_a_ragged_batch_is_that_row_alone(
    config: gpt.Config, padding: list[int], cache: bool, seed: int
) -> None:
    ids, uniforms = prompts(3, 5, seed), numpy.random.default_rng(seed).random((3, 3))
    together, _ = written(config, ids, 3, padding=numpy.array(padding), uniforms=uniforms, cache=cache)
    for row, n in enumerate(padding):
        alone, _ = written(config, ids[row : row + 1, n:], 3, uniforms=uniforms[row : row + 1], cache=cache)
        assert together[row].tolist() == alone[0].tolist()


@every_model
@pytest.mark.parametrize("cache", [True, False])
def test_when_the_context_is_full_its_last_half_becomes_the_beginning(config: gpt.Config, cache: bool) -> None:
    """Step by step: the model sees at most a context of tokens, and always the newest."""
    text = prompts(2, 6)
    tokens, logits = written(config, text, 15, cache=cache)
    for step in range(15):
        if text.shape[1] > config.context:
            text = text[:, -(config.context // 2) :]
        numpy.testing.assert_allclose(logits[:, step], next_logits(config, text), rtol=1e-10, atol=1e-11)
        text = numpy.concatenate([text, tokens[:, step : step + 1]], axis=1)


@every_model
@pytest.mark.parametrize("cache", [True, False])
def test_when_the_window_slides_padding_leaves_it_first(config: gpt.Config, cache: bool) -> None:
    text, padding = prompts(3, 7), [0, 2, 6]
    tokens, logits = written(config, text, 15, padding=numpy.array(padding), cache=cache)
    for step in range(15):
        if text.shape[1] > config.context:
            gone = text.shape[1] - config.context // 2
            text, padding = text[:, gone:], [max(0, n - gone) for n in padding]
        for row, n in enumerate(padding):
            alone = next_logits(config, text[row : row + 1, n:])
            numpy.testing.assert_allclose(logits[row, step], alone[0], rtol=1e-10, atol=1e-11)
        text = numpy.concatenate([text, tokens[:, step : step + 1]], axis=1)


@pytest.mark.parametrize("context", [1, 2])
def test_even_the_shortest_context_slides(context: int) -> None:
    config = gpt.Config(vocabulary=V, context=context, layers=1, heads=1, width=4, hidden=4)
    tokens, _ = written(config, prompts(1, 1), 5)
    assert tokens.shape == (1, 5)


@every_model
@pytest.mark.parametrize("cache", [True, False])
def test_a_prompt_costs_one_row_of_logits(config: gpt.Config, cache: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[tuple[int, ...]] = []

    def product(x: Any, W: Any) -> Any:
        rows.append(x.shape)
        return matmul(x, W)

    monkeypatch.setattr("refllm.generation.generate.matmul", product)
    written(config, prompts(2, 5), 3, cache=cache)
    assert rows == [(2, config.width)] * 3


@every_model
def test_tokens_are_chosen_from_the_logits_that_come_with_them(config: gpt.Config) -> None:
    uniforms = numpy.random.default_rng(3).random((2, 6))
    how: dict[str, Any] = {"temperature": 1.7, "top_k": 5, "top_p": 0.9}
    tokens, logits = written(config, prompts(2, 2), 6, uniforms=uniforms, **how)
    for step in range(6):
        assert tokens[:, step].tolist() == choose(logits[:, step], uniforms=uniforms[:, step], **how).tolist()


def test_tokens_come_as_soon_as_they_are_known() -> None:
    calls: list[int] = []

    def hidden_states(p: Tree, **rest: Any) -> Any:
        calls.append(1)
        return gpt.hidden_states(p, **rest)

    config = CONFIGS["GPT-2"]
    model = SimpleNamespace(forward=gpt.forward, hidden_states=hidden_states, head=head, cache_shape=gpt.cache_shape)
    steps = generate(
        parameters(config), model=model, ids=prompts(1, 2), padding=None, config=config, new_tokens=5, temperature=1.0,
        top_k=None, top_p=None, uniforms=None, cache=True,
    )  # fmt: skip
    for n in range(1, 6):
        next(steps)
        assert len(calls) == n


def test_the_prompt_and_the_parameters_are_only_read() -> None:
    ids, config = prompts(2, 3), CONFIGS["GPT-2"]
    ids.setflags(write=False)
    padding = numpy.array([0, 2])
    padding.setflags(write=False)
    written(config, ids, 12, padding=padding)


@pytest.mark.parametrize("T", [0, 9])
def test_a_prompt_that_is_empty_or_longer_than_the_context_is_refused(T: int) -> None:
    with pytest.raises(ValueError, match=f"the prompt must have 1 to 8 tokens .context., not {T}"):
        written(CONFIGS["GPT-2"], prompts(1, T), 1)


def test_the_cache_copies_nothing_and_refuses_what_does_not_fit() -> None:
    cache = KeyValueCache(batch=1, layers=1, heads=2, room=3, head_width=4, padding=None, like=numpy.zeros(1))
    k = numpy.random.default_rng(0).standard_normal((1, 2, 2, 4))
    positions, attention_mask = cache.advance(2)
    assert positions.tolist() == [0, 1]
    assert attention_mask is None
    keys, values = cache.layers[0].extend(k, -k)
    assert numpy.array_equal(keys, k)
    assert numpy.array_equal(values, -k)
    assert numpy.shares_memory(keys, cache.layers[0].k)
    assert cache.advance(1)[0].tolist() == [2]
    with pytest.raises(ValueError, match="no room for 1 more tokens; it holds 3 of 3"):
        cache.advance(1)
