"""The stages of a model: refllm's own taps are the truth's, and a wrong stage is told from one that was given wrong."""

from __future__ import annotations

import numpy
import pytest

from refllm.verify import corpus, taps
from refllm.verify.case import Case
from refllm.verify.tolerance import ratios


def _cases(golden: corpus.Corpus) -> list[Case]:
    return [case for case in golden.cases.values() if taps.stages_of(case, "float64")[0]]


def test_the_stages_give_every_tap_of_every_model(golden: corpus.Corpus) -> None:
    cases = _cases(golden)
    assert {case.operation for case in cases} >= {
        "transformer_layer", "gpt", "gpt_loss", "train_step", "llama_layer", "llama", "llama_loss", "switch",
        "switch_loss",
    }  # fmt: skip
    assert {case.id for case in golden.cases.values() if case.taps} - {case.id for case in cases} <= {
        "ATT/e1-one-query", "ATT/e1-three-tokens",
    }  # fmt: skip
    for case in cases:
        stages, given = taps.stages_of(case, "float64")
        found = taps.values(stages, given)
        assert [stage.name for stage in stages] == list(case.taps), case.id
        for name, truth in case.taps.items():
            assert (ratios(found[name].reshape(truth.value.shape), truth, "float64", golden.C) <= 1).all()


@pytest.mark.parametrize(
    "first", ["embedding", "layers.0.norm1", "layers.0.feed_forward", "layers.1.residual2", "norm"]
)
def test_an_error_made_in_a_stage_is_local_to_it(golden: corpus.Corpus, first: str) -> None:
    case = golden.cases["LMHEAD/gpt2"]
    stages, _ = taps.stages_of(case, "float64")
    found: dict[str, numpy.ndarray] = {}
    for stage in stages:
        found[stage.name] = stage.compute(*(found[name] for name in stage.takes)) * (2 if stage.name == first else 1)
    wrong = [n for n, t in case.taps.items() if (ratios(found[n], t, "float64", golden.C) > 1).any()]
    line = taps.located(case, found, wrong, "float64", golden.C)
    assert line is not None
    assert line.startswith(f"{first} is the first tap that differs")
    assert "the error is local" in line


def test_a_tap_that_follows_from_a_wrong_input_is_inherited(golden: corpus.Corpus) -> None:
    """Were the wrong tap before it not called wrong, the next one would be found right about its inputs."""
    case = golden.cases["LMHEAD/gpt2"]
    stages, _ = taps.stages_of(case, "float64")
    found = taps.values(stages, {})
    found["layers.0.norm1"] = found["layers.0.norm1"] * 2
    for stage in stages[2:]:
        found[stage.name] = stage.compute(*(found[name] for name in stage.takes))
    line = taps.located(case, found, ["layers.0.attention", "logits"], "float64", golden.C)
    assert line is not None
    assert "inherited: it follows from its inputs; 1 later taps differ too" in line
    assert taps.located(case, found, [], "float64", golden.C) is None
