"""The text with a cache gives what the text gives, and a mistake in the cache is explained by an edit of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy
import pytest

from refllm.verify import cached, corpus, plain, runner
from refllm.verify.adapter import Functions
from refllm.verify.case import Case
from refllm.verify.edits import compiled, edits, source_of
from refllm.verify.imitations import equal
from refllm.verify.search import explained

GOLDEN = corpus.load(corpus.folder(None))
CASES = [case for case in GOLDEN.cases.values() if plain.called_with_cache(case)]


def slow(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


def with_functions(case: Case, functions: Mapping[Any, Any]) -> Any:
    return plain.answer(case, "float64", functions, traced=False)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_with_a_cache_the_text_gives_the_same(case: Case) -> None:
    """For prompts of every length too."""
    own = {f: f for f in plain.called_with_cache(case)}
    answer = with_functions(case, own)
    assert answer is not None
    assert equal(case, answer, with_functions(case, {}), "float64")
    how: dict[str, Any] = {**case.keyword_arguments(), "uniforms": None, "new_tokens": 3}
    model, config = how.pop("model", "gpt"), how["config"]
    del how["cache"]
    text = numpy.random.default_rng(3).integers(0, config["vocabulary"], 6)
    for length in range(1, config["context"] - 2 if config["context"] < 9 else 6):
        how["ids"] = text[:length]
        [p] = case.arguments("float64")
        mine = cached.generate_cached(p, model=model, **how)
        theirs = plain.text()["generate"](p, model=plain.text()[model], **how)
        assert numpy.array_equal(mine[0], theirs[0])
        assert numpy.allclose(mine[1], theirs[1], rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_every_function_with_a_cache_decides_an_answer() -> None:
    for function in cached.FUNCTIONS:
        changed = 0
        for edit in list(edits(function))[:40]:
            of_this = [case for case in CASES if function in plain.called_with_cache(case)]
            answers = [with_functions(case, {function: edit.function()}) for case in of_this]
            changed += any(
                answer is None or not equal(case, answer, with_functions(case, {}), "float64")
                for case, answer in zip(of_this, answers, strict=True)
            )
        assert changed > 10, function.__name__


@pytest.mark.slow
@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("function", "old", "new"),
    [
        slow(cached.llama_step, "positions = before", "positions = before - (1 if before else 0)"),
        (cached.gpt_step, "positions = before + arange(T)", "positions = arange(T)"),
        slow(cached.llama_step, "cut(k, config[\"kv_heads\"]), rotation", "cut(k, config[\"kv_heads\"]), None"),
        (cached.bias_of_step, "arange(S) - positions", "arange(S) - 0 * positions"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_cache_is_explained_by_an_edit_of_it(function: Any, old: str, new: str) -> None:
    assert source_of(function).count(old) == 1
    wrong: dict[Any, Any] = {function: compiled(function, source_of(function).replace(old, new))}
    cases = [case for case in GOLDEN.cases.values() if case.operation == "generate"]

    def mistaken(p: Any, *, model: str = "gpt", cache: bool, **how: Any) -> Any:
        if cache and model in cached.MODELS:
            with plain.exchanged(wrong):
                return cached.generate_cached(p, model=model, **how)
        return plain.operations()["generate"](p, model=model, cache=cache, **how)

    results = list(runner.run(Functions("a stranger", {"generate": mistaken}, {}), cases, "float64", GOLDEN.C))
    assert any(result.wrong for result in results)
    found = explained(results, "float64", seconds=30)["generate"]
    assert found.edits[0].original in cached.FUNCTIONS
    assert 2 * len(found.explained) > found.wrong
