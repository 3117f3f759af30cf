"""A wrong port is told where it is wrong and by which mistake; a right one passes."""

from __future__ import annotations

import ast
from typing import Any, NamedTuple

import pytest

from refllm.verify.edits import source_of
from refllm.verify.ports import places
from refllm.verify.ports.candidates import edits_of
from refllm.verify.ports.found import Searched
from refllm.verify.ports.mistakes import habit, habits
from refllm.verify.ports.published import gpt
from refllm.verify.ports.report import PortReport, as_text
from refllm.verify.ports.search import searched
from refllm.verify.ports.trials import Trials, at
from spec_tests.verify.ports.models import CONFIGS

SECONDS = 60.0
# of YaRN and BART, which none of the small models is
NO_SUCH_MODEL = ("between the two ends", "the shares of the scaled", "the norms are laid over what")
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
    Wrong("llama3", "layers exchanged", "the whole layer", "layers 1 and 2 of the model are exchanged"),
]
PORTS = [
    Wrong("gpt2", "mask after the softmax", "attention mask and softmax", "the mask comes after the softmax"),
    Wrong("bert", "segments after the norm", "embedding", "the sum comes after norm"),
    Wrong("gemma2", "cap before the scale", "attention scores", "the quotient comes after soft_cap"),
    Wrong("gemma2", "norms over the sums", "residual", "norm comes after the sum, before which is right, twice"),
    Wrong("bert", "norm before gelu", "transform before the output layer", "activated comes after norm"),
    Wrong("bert", "no residuals", "residual", '+ t = tap("residual2", tap("feed_forward", f))'),
    Wrong("gpt2", "causal mask missing, mask obeyed", "attention mask and softmax", "causal"),
    Wrong("gpt2", "layers exchanged", "the whole layer", "layers 1 and 2 of the model are exchanged"),
    Wrong("bert", "layers exchanged", "the whole layer", "layers 1 and 2 of the model are exchanged"),
    Wrong("gpt2", "query bias missing", "map of the queries", "bias of q alone"),
    Wrong("bert", "query bias missing", "map of the queries", "bias of q alone"),
    Wrong("bert", "value bias missing", "map of the values", "bias of v alone"),
    Wrong("qwen2", "key bias missing", "map of the keys", "attention.bk is left out"),
    Wrong("qwen3", "qk norm after rope", "rotary", "come after the rotation"),
    Wrong("gpt2", "residuals from the normed", "residual", "both residuals begin from the normed value"),
    Wrong("gpt2", "residuals from the normed @1", "residual", "both residuals begin from the normed value"),
    Wrong("mistral", "residuals from the normed", "residual", "both residuals begin from the normed value"),
    Wrong("bert", "norms before the sums", "norm 1 of the layer", "both norms are laid over"),
    Wrong("mistral", "head width from the heads", "rotary", "in the rotation and in the scores"),
    Wrong("gpt2", "dropout's scale left on", "attention mask and softmax", "a dropout of 0.1"),
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
        assert one.everywhere or one.candidate.change.steps is not None


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
        edit = habit.edited(function, old, new, said)  # type: ignore[arg-type]
        assert edit.function() is not None, said
        code, other = (ast.parse(source).body[0].body for source in (source_of(edit.original), edit.source))  # type: ignore[attr-defined]
        assert ast.dump(code[0]) == ast.dump(other[0]), "the docstring is changed"
        assert [ast.dump(line) for line in code[1:]] != [ast.dump(line) for line in other[1:]], said


@pytest.mark.slow
def test_every_habit_can_be_computed_and_changes_a_value(published: Any) -> None:
    """On some model: one that raises wherever it is tried would never be found."""
    works, every = set(), {said for *_, said in habits.HABITS}
    for name in CONFIGS:
        model = published(name)
        trials = Trials(model.program, model.p, model.answers("", taps=True)[-2:])
        for one in habits.mistakes(model.program):
            if one.said not in works:
                places = [n for n, step in enumerate(model.program.steps) if one.acts(step)]
                change = one.changed()
                assert change is not None
                if trials.first_change(at(places, change)):
                    works.add(one.said)
    left = {said for said in every - works if not said.startswith(NO_SUCH_MODEL)}
    assert not left


def test_a_search_that_is_interrupted_says_how_far_it_came(published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = published("llama3")
    answers = model.answers("rope neighbours @1", taps=True)
    calls = iter(range(4))

    def interrupted(*_: Any) -> str:
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return "layers.1.q"

    monkeypatch.setattr(Trials, "first_difference", interrupted)
    found = searched(model.program, model.p, {}, answers, SECONDS)
    assert found.ended == "interrupted"
    assert 0 < found.tried < 10
    assert not found.complete
    said = as_text(report_of(model, answers, found))
    assert f"interrupted after {found.tried} mistake" in said


def test_a_search_that_had_no_time_claims_nothing(published: Any) -> None:
    model = published("llama3")
    answers = model.answers("rope neighbours @1", taps=False)
    for seconds in (0.0, 1e-6):
        found = searched(model.program, model.p, {}, answers, seconds)
        assert found == Searched([], False, 0, "time")
        assert "in the time there was" in as_text(report_of(model, answers, found))


def test_what_differs_first_is_what_differs_first_on_any_input(published: Any) -> None:
    """One token shows the second mistake alone."""
    model = published("llama3")
    one, *others = model.answers("gate and up exchanged", taps=True)
    answers = [one, *model.answers("rope neighbours", taps=True)[1:]]
    assert one.wrong
    assert others
    report = report_of(model, answers, Searched([], False, 0))
    assert report.begins[0] == "layers.0.q"
    assert not any(report.begins[1] in answer.wrong for answer in answers)
    assert "differs first   layer 0, rotary: q after turning (layers.0.q, on two" in as_text(report)


def test_alternatives_are_other_mistakes(published: Any) -> None:
    """No sentence twice, and no edit that is another spelling of the same numbers."""
    model = published("llama3")
    found = searched(model.program, model.p, {}, model.answers("rope other way", taps=True), SECONDS)
    [one] = found.found
    said = [candidate.said or str(candidate.lines) for candidate in (one.candidate, *one.others)]
    assert len(said) == len(set(said))
    assert all(candidate.said for candidate in one.others)


def test_a_decoder_is_tried_with_padding_on_the_right(published: Any) -> None:
    """What a port makes of the padded places does not count, and one that ignores the mask is right."""
    model = published("mistral")
    for right in ("", "mask obeyed"):
        assert all(answer.right for answer in model.answers(right, taps=True))
    wrong = [answer.truth.input.name for answer in model.answers("mask of padding one off", taps=False) if answer.wrong]
    assert wrong == ["padded"]


def report_of(model: Any, answers: Any, found: Searched) -> PortReport:
    return PortReport("port.py", str(model.folder), "llama", model.program, "float32", answers, {}, {}, found)


def test_no_argument_stands_in_the_place_of_one_of_another_kind() -> None:
    """Nobody writes causal=config, and as a flag it is causal=True again."""
    changed = [line for edit in edits_of(gpt.self_attention) for line in edit.diff() if line.startswith("+")]
    assert any("causal=True" in line or "causal = True" in line for line in changed)
    assert not any(f"causal={other}" in line for line in changed for other in ("config", "p", "x", "attention_mask"))
