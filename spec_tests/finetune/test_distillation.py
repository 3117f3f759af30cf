"""Laws of distillation."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.finetune import by_name
from refllm.finetune.distillation import Teacher, distillation_loss, distilled, distilled_lm_loss
from refllm.models import bert, gpt, switch
from refllm.objectives.causal import Causal
from refllm.objectives.classification import Classification
from refllm.parameters import Tree, named_leaves
from spec_tests.finetune.models import FAMILIES, Family, same
from spec_tests.gradients import assert_gradients_agree, random_tree

RANDOM = numpy.random.default_rng(0)
Z, TAUGHT = RANDOM.standard_normal((2, 6, 4))
TARGETS = RANDOM.integers(0, 4, 6)
BY_HAND = {
    "bert": (bert, {"vocabulary": 5, "context": 4, "layers": 1, "heads": 1, "width": 6, "hidden": 3, "labels": 3}),
    "gpt": (gpt, {"vocabulary": 5, "context": 4, "layers": 1, "heads": 1, "width": 6, "hidden": 3}),
}


def teacher(name: str, *, temperature: float = 2.0, share: float = 0.6, **changes: Any) -> Teacher:
    """Another size than the student's."""
    model, sizes = BY_HAND[name]
    config = model.Config(**{**sizes, **changes}, **({"outputs": ("classes",)} if name == "bert" else {}))
    return Teacher(model, config, random_tree(model.shapes(config), seed=5), temperature=temperature, share=share)


def student(name: str) -> tuple[Family, Tree]:
    family = FAMILIES[name]
    return family, random_tree(family.model.shapes(family.config), seed=1)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_loss_of_a_row_is_the_formula_written_out(temperature: float, share: float) -> None:
    loss, _ = distillation_loss(Z, teacher=TAUGHT, targets=TARGETS, smoothing=0.0, temperature=temperature, share=share)

    def log_p(row: list[float]) -> list[float]:
        return [x - math.log(sum(math.exp(y) for y in row)) for x in row]

    for z, t, target, found in zip(Z.tolist(), TAUGHT.tolist(), TARGETS, loss, strict=True):
        soft = log_p([x / temperature for x in z])
        q = [math.exp(x) for x in log_p([x / temperature for x in t])]
        wanted = -(1 - share) * log_p(z)[target]
        wanted -= share * temperature**2 * sum(a * b for a, b in zip(q, soft, strict=True))
        assert found == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_gradient_of_the_logits_agrees_with_differences(share: float, smoothing: float) -> None:
    how: dict[str, Any] = {"targets": TARGETS, "smoothing": smoothing, "temperature": 3.0, "share": share}
    assert_gradients_agree(lambda z: distillation_loss(z, teacher=TAUGHT, **how), Z)


def test_a_teacher_that_is_not_asked_leaves_the_students_own_loss_with_its_smoothing() -> None:
    family, p = student("bert")
    own = Classification(family.model, family.config, 0.2)
    taught: Any = distilled(own, replace(teacher("bert"), share=0.0))
    found, wanted = (objective.loss(p, family.batch, totals=3.0, dropout_mask=None) for objective in (taught, own))
    assert found[0] == pytest.approx(wanted[0], rel=1e-13)
    assert found[0] != pytest.approx(family.objective.loss(p, family.batch, totals=3.0, dropout_mask=None)[0], rel=1e-5)
    one, other = (dict(named_leaves(back(numpy.ones(())))) for _, back in (found, wanted))
    for path in one:
        numpy.testing.assert_allclose(one[path], other[path], rtol=1e-11, atol=1e-14)


def test_a_student_with_the_teachers_logits_has_nothing_to_learn_from_it() -> None:
    """Up to a constant of each row, which a softmax does not see."""
    _, back = distillation_loss(Z, teacher=Z + 5.0, targets=TARGETS, smoothing=0.0, temperature=3.0, share=1.0)
    assert abs(back(numpy.ones(6))).max() < 1e-15


def test_at_high_temperature_the_gradient_is_that_of_matching_logits() -> None:
    """Hinton et al. 2015 sec. 2.1: (z - t) / V, both with mean zero; T² keeps its size whatever the temperature."""
    z, t = (x - x.mean(axis=-1, keepdims=True) for x in (Z, TAUGHT))
    _, back = distillation_loss(z, teacher=t, targets=TARGETS, smoothing=0.0, temperature=1e4, share=1.0)
    numpy.testing.assert_allclose(back(numpy.ones(6)), (z - t) / 4, atol=1e-3)


@pytest.mark.parametrize("name", BY_HAND)
def test_the_student_has_the_gradient_of_differences(name: str) -> None:
    """Of its upper part, which the gradient reaches through the same pullback as the rest."""
    family, p = student(name)
    tuning = by_name("upper", model=family.model, config=family.config, parameters=p, layers=1)
    objective: Any = distilled(tuning.wrap(family.objective), teacher(name))
    batch = {**family.batch, "weights": numpy.array([0.5, 2.0, 1.0])} if name == "bert" else family.batch
    totals, leaves = objective.totals(batch), dict(named_leaves(p))
    assert_gradients_agree(
        lambda p: objective.loss(p, batch, totals=totals, dropout_mask=None),
        {path: leaves[path] for path in tuning.model.leaves},
    )


@pytest.mark.parametrize("name", BY_HAND)
def test_a_teacher_without_a_share_is_not_heard(name: str) -> None:
    family, p = student(name)
    objective: Any = distilled(family.objective, teacher(name, share=0.0))
    totals = objective.totals(family.batch)
    assert objective.loss(p, family.batch, totals=totals, dropout_mask=None)[0] == pytest.approx(
        family.loss(p), rel=1e-12
    )
    assert objective.dropout_shapes(family.batch) == family.objective.dropout_shapes(family.batch)


@pytest.mark.parametrize("name", BY_HAND)
def test_a_teacher_is_not_changed(name: str) -> None:
    family, p = student(name)
    taught, before = teacher(name), teacher(name).parameters
    objective: Any = distilled(family.objective, taught)
    _, back = objective.loss(p, family.batch, totals=3, dropout_mask=None)
    back(numpy.ones(()))
    assert same(taught.parameters, before)


def test_shards_add_up_and_weights_of_texts_count() -> None:
    family, p = student("bert")
    objective: Any = distilled(family.objective, teacher("bert"))
    batch = {**family.batch, "weights": numpy.array([0.5, 2.0, 1.0])}
    totals = objective.totals(batch)
    assert totals == 3.5
    whole = float(objective.loss(p, batch, totals=totals, dropout_mask=None)[0])
    shards = [{name: leaf[n] for name, leaf in batch.items()} for n in (slice(0, 1), slice(1, 3))]
    parts = [float(objective.loss(p, shard, totals=totals, dropout_mask=None)[0]) for shard in shards]
    assert whole == pytest.approx(sum(parts), rel=1e-12)
    lone = [{name: leaf[i : i + 1] for name, leaf in family.batch.items()} for i in range(3)]
    each = [float(objective.loss(p, text, totals=1.0, dropout_mask=None)[0]) for text in lone]
    assert whole == pytest.approx(sum(w * y for w, y in zip(batch["weights"], each, strict=True)) / 3.5, rel=1e-12)


def test_the_loss_in_blocks_is_the_sum_over_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refllm.finetune.distillation.LOGITS", 2 * 4)  # two rows a block
    h, W = RANDOM.standard_normal((2, 3, 5)), RANDOM.standard_normal((5, 4))
    taught, head = RANDOM.standard_normal((2, 3, 7)), RANDOM.standard_normal((7, 4))
    how: dict[str, Any] = {"targets": TARGETS.reshape(2, 3), "temperature": 2.0, "share": 0.4}
    y, _ = distilled_lm_loss(h, W, teacher=taught, teacher_head=head, **how)
    wanted, _ = distillation_loss(h @ W, teacher=taught @ head, smoothing=0.0, **how)
    assert y == pytest.approx(wanted.sum(), rel=1e-12)

    def f(p: Tree) -> Any:
        y, back = distilled_lm_loss(p["h"], p["W"], teacher=taught, teacher_head=head, **how)
        return y, lambda dy: dict(zip(("h", "W"), back(dy), strict=True))

    assert_gradients_agree(f, {"h": h, "W": W})


def test_a_part_of_a_student_can_be_taught() -> None:
    family, p = student("bert")
    tuning = by_name("upper", model=family.model, config=family.config, parameters=p, layers=1)
    objective: Any = distilled(tuning.wrap(family.objective), teacher("bert"))
    trained = dict(named_leaves(p))
    y, back = objective.loss(
        {path: trained[path] for path in tuning.model.leaves}, family.batch, totals=3.0, dropout_mask=None
    )
    alone: Any = distilled(family.objective, teacher("bert"))
    whole, _ = alone.loss(p, family.batch, totals=3.0, dropout_mask=None)
    assert y == whole
    assert back(numpy.ones(())).keys() == tuning.model.leaves.keys()


def test_what_cannot_teach_is_refused_in_one_line() -> None:
    family, _ = student("gpt")
    with pytest.raises(UserError, match="the same vocabulary: 7 and 5"):
        distilled(family.objective, teacher("gpt", vocabulary=7))
    with pytest.raises(UserError, match="the same labels: 4 and 3"):
        distilled(FAMILIES["bert"].objective, teacher("bert", labels=4))
    with pytest.raises(UserError, match="needs a language model without experts, or a classifier"):
        distilled(FAMILIES["encoder_decoder"].objective, teacher("gpt"))
    with pytest.raises(UserError, match="needs a language model without experts, or a classifier"):
        distilled(Causal(switch, None), teacher("gpt"))
    with pytest.raises(UserError, match="temperature must be a positive number, got 0"):
        teacher("gpt", temperature=0.0)
    with pytest.raises(UserError, match=r"share of the teacher must be between 0 and 1, got 1\.5"):
        teacher("gpt", share=1.5)
    assert isinstance(FAMILIES["bert"].objective, Classification)
