"""What is fitted to the answers of a port is claimed where it fits them all, and where other numbers would not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy
import pytest

from refllm.verify.ports import fitted
from refllm.verify.ports.judged import Judged, judged


def of_another_head(model: Any, times: float = 1.0) -> list[Judged]:
    """Logits of right states and drawn weights."""
    width = model.program.config["width"]
    weights = numpy.random.default_rng(4).normal(size=(width, model.program.config["vocabulary"]))
    found = []
    for one in model.truths:
        x = one.values[model.program.steps[-2].place].value if "transform" not in one.values else (
            one.values["transform"].value
        )  # fmt: skip
        y = x @ weights * times
        cap = model.program.config.get("logit_cap")
        y = cap * numpy.tanh(y / cap) if cap else y
        found.append(judged(model.program, one, {"logits": y.astype("float32")}, {}))
    return found


@pytest.mark.parametrize(("name", "path"), [("gpt2", "token"), ("gemma2", "token"), ("bert", "token"), ("t5", "token")])
def test_an_output_layer_of_other_weights_is_told(published: Any, name: str, path: str) -> None:
    """Through a cap of the logits too, as far as they are not held at it."""
    model = published(name)
    answers = of_another_head(model, 0.1)
    found = fitted.other_head(model.program, model.p, answers)
    assert found is not None
    assert f"other weights than those of {path}" in found.said


def test_nothing_is_fitted_to_states_that_are_wrong_nor_to_too_few_places(published: Any) -> None:
    model = published("gpt2")
    wrong = model.answers("gelu erf", taps=False)
    assert fitted.other_head(model.program, model.p, wrong) is None
    answers = of_another_head(model)
    assert fitted.other_head(model.program, model.p, answers) is not None
    assert fitted.other_head(model.program, model.p, answers[:3]) is None  # ten places, of 24 numbers each
    assert fitted.other_head(model.program, model.p, model.answers("", taps=False)) is None


def test_a_number_is_a_factor_if_it_explains_every_input(published: Any) -> None:
    model = published("gemma2")
    answers = model.answers("embedding times 5.5", taps=True)
    assert fitted.factor(answers, "embedding") == pytest.approx(5.5 / 24**0.5, rel=1e-6)
    one, *others = answers
    given = one.compared["embedding"]
    mixed = [replace(one, compared={"embedding": replace(given, given=given.given * 2, far=9.0)}), *others]
    assert fitted.factor(mixed, "embedding") is None
    assert fitted.factor(answers, "layers.0") is None
    assert [one.said for one in fitted.numbers(model.program, answers)] == [
        "the embedding is multiplied by 5.5, where 4.89898 is right"
    ]
