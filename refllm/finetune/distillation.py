"""Distillation: a small model learns from the probabilities of a large one, beside the labels.

    L = (1 - λ) CE(z, target) + λ T² CE(z / T, softmax(t / T))      z the student's logits, t the teacher's

T², since the gradients of the soft part shrink with 1/T². The teacher is asked for the rows of each batch as they come,
without dropout, and nothing of it is kept for a pullback.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from refllm.backend import Array, namespace
from refllm.blocks.lm_head import LOGITS
from refllm.differentiable import differentiable
from refllm.errors import UserError
from refllm.finetune.tuning import Tuned
from refllm.kinds import settle_fields
from refllm.models.output import logit_cap
from refllm.objectives.causal import Causal
from refllm.objectives.classification import Classification, apart
from refllm.ops.cross_entropy import smoothed_cross_entropy, soft_cross_entropy
from refllm.ops.linear import matmul
from refllm.ops.softmax import softmax
from refllm.parameters import Tree


@dataclass(frozen=True)
class Teacher:
    """A trained model, and how much it says: `share` λ of the loss, at the temperature T."""

    model: ModuleType
    config: Any
    parameters: Tree
    temperature: float = 2.0
    share: float = 0.5

    def __post_init__(self) -> None:
        settle_fields(self)
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise UserError(f"temperature must be a positive number, got {self.temperature}")
        if not 0 <= self.share <= 1:
            raise UserError(f"the share of the teacher must be between 0 and 1, got {self.share}")
        if logit_cap(self.config) is not None:
            raise UserError("a model with a cap of its logits cannot be distilled; give a teacher without one")


@differentiable
def distillation_loss(
    logits: Array, *, teacher: Array, targets: Array, smoothing: float, temperature: float, share: float
) -> tuple[Array, Callable[[Array], Array]]:
    """CE: y = -(1 - λ) log p[target] - λ T² Σ_j q_j log p'_j,   p = softmax(z), p' = softmax(z / T), q = softmax(t / T)

    a number a row; z = logits, t = teacher, T = temperature, λ = share. With smoothing, the first part, and in Back the
    one-hot vector, are those of `smoothed_cross_entropy`.
    Source:  Hinton et al. 2015 (arXiv:1503.02531) sec. 2.
    Shapes:  logits (..., V); teacher (..., V); targets (...) in [0, V) -> y (...)
    Back:    dz = dy ((1 - λ) (p - onehot(target)) + λ T (p' - q))
    Special: λ = 0 is `smoothed_cross_entropy`; at λ = 1 the least value, T² times the entropy of q, is where p' = q.

    >>> z, t = zeros((1, 4)), zeros((1, 4))  # both know nothing
    >>> how = {"targets": array([0]), "smoothing": 0.0, "temperature": 3.0}
    >>> [(distillation_loss(z, teacher=t, share=λ, **how)[0] / math.log(4)).round(12).tolist() for λ in (0.0, 1.0)]
    [[1.0], [9.0]]
    """
    hard, back_hard = smoothed_cross_entropy(
        logits, targets=targets, ignore=None, smoothing=smoothing, reduction="none"
    )
    q, _ = softmax(teacher / temperature)
    soft, back_soft = soft_cross_entropy(logits / temperature, q, reduction="none")

    def back(dy: Array) -> Array:
        dscaled, _ = back_soft(dy * (share * temperature**2))
        return back_hard(dy * (1 - share)) + dscaled / temperature

    return (1 - share) * hard + (share * temperature**2) * soft, back


@dataclass(frozen=True)
class DistilledClassification:
    """The objective `Classification` of a student with a teacher beside the labels: the same texts, weights and mean.

    Shapes:  a batch as `Classification` has it.
    """

    student: Classification
    teacher: Teacher

    def totals(self, batch: Tree) -> float:
        return self.student.totals(batch)

    def dropout_shapes(self, batch: Tree) -> Tree:
        return self.student.dropout_shapes(batch)

    def loss(
        self, p: Tree, batch: Tree, *, totals: float, dropout_mask: Tree | None
    ) -> tuple[Array, Callable[[Array], Tree]]:
        model, config = self.student.model, self.student.config
        text = {name: batch[name] for name in ("ids", "segments", "attention_mask")}
        inside, pooled = apart(dropout_mask)
        h, back_h = model.encode(p, **text, config=config, dropout_mask=inside)
        z, back_z = model.class_logits(h, p, dropout_mask=pooled, rate=config.dropout)
        each, back_each = distillation_loss(
            z, teacher=self._taught(text), targets=batch["targets"], smoothing=self.student.smoothing,
            temperature=self.teacher.temperature, share=self.teacher.share,
        )  # fmt: skip
        weights = batch.get("weights")
        w = namespace(each).ones_like(each) if weights is None else weights.astype(each.dtype)

        def back(dy: Array) -> Tree:
            dh, dhead = back_z(back_each(w * (dy / totals)))
            return model.whole_gradient(p, back_h(dh), dhead)

        return (each * w).sum() / totals, back

    def _taught(self, text: dict[str, Array]) -> Array:
        t = self.teacher
        h, _ = t.model.encode(t.parameters, **text, config=t.config, dropout_mask=None)
        logits: Array = t.model.class_logits(h, t.parameters, dropout_mask=None, rate=0.0)[0]
        return logits


@dataclass(frozen=True)
class DistilledCausal:
    """The objective `Causal` of a student with a teacher of the same vocabulary beside the text.

    Shapes:  a batch: tokens (B, T + 1), as `Causal` has it.
    """

    student: Causal
    teacher: Teacher

    def totals(self, batch: Tree) -> int:
        return self.student.totals(batch)

    def dropout_shapes(self, batch: Tree) -> Tree:
        return self.student.dropout_shapes(batch)

    def loss(
        self, p: Tree, batch: Tree, *, totals: int, dropout_mask: Tree | None
    ) -> tuple[Array, Callable[[Array], Tree]]:
        model, config, t = self.student.model, self.student.config, self.teacher
        ids, targets = batch[:, :-1], batch[:, 1:]
        taught, _ = t.model.hidden_states(t.parameters, ids=ids, config=t.config, dropout_mask=None, cache=None)
        h, back_hidden = model.hidden_states(p, ids=ids, config=config, dropout_mask=dropout_mask, cache=None)
        y, back_head = distilled_lm_loss(
            h, model.head(p, config), teacher=taught, teacher_head=t.model.head(t.parameters, t.config),
            targets=targets, temperature=t.temperature, share=t.share,
        )  # fmt: skip

        def back(dy: Array) -> Tree:
            dh, dhead = back_head(dy / totals)
            return model.add_head_gradient(back_hidden(dh), dhead, config)

        return y / totals, back


@differentiable
def distilled_lm_loss(
    h: Array, W: Array, *, teacher: Array, teacher_head: Array, targets: Array, temperature: float, share: float
) -> tuple[Array, Callable[[Array], tuple[Array, Array]]]:
    """LMHEAD, CE: y = Σ over places of `distillation_loss` of the logits h W and those of the teacher

    Source:  Hinton et al. 2015 (arXiv:1503.02531) sec. 2; the blocks as in `lm_loss`.
    Shapes:  h (..., C); W (C, V); teacher (..., K); teacher_head (K, V); targets (...) in [0, V) -> y ()
    Back:    dh = dy Σ_v dlogits Wᵀ;  dW = dy hᵀ dlogits
    Special: `teacher` are its hidden states. As in `lm_loss` a block's gradient is formed while its logits are there.

    >>> how = {"targets": array([0, 1]), "temperature": 1.0, "share": 0.5}
    >>> how |= {"teacher": ones((2, 1)), "teacher_head": zeros((1, 4))}
    >>> y, back = distilled_lm_loss(ones((2, 3)), zeros((3, 4)), **how)
    >>> round(float(y / math.log(4)), 12)
    2.0
    """
    xp = namespace(h)
    C, V = W.shape
    rows, taught, wanted = h.reshape(-1, C), teacher.reshape(-1, teacher.shape[-1]), targets.reshape(-1)
    y, dh, dW = xp.zeros((), h.dtype), xp.empty_like(rows), xp.zeros_like(W)
    size = max(1, LOGITS // V)
    for start in range(0, len(rows), size):
        n = slice(start, start + size)
        z, back_z = matmul(rows[n], W)
        each, back_each = distillation_loss(
            z, teacher=matmul(taught[n], teacher_head)[0], targets=wanted[n], smoothing=0.0, temperature=temperature,
            share=share,
        )  # fmt: skip
        y = y + each.sum()
        dh[n], dW_block = back_z(back_each(xp.ones_like(each)))
        dW = dW + dW_block

    def back(dy: Array) -> tuple[Array, Array]:
        return (dh * dy).reshape(h.shape), dW * dy

    return y, back


def distilled(objective: Any, teacher: Teacher) -> DistilledClassification | DistilledCausal | Tuned:
    """The objective of a student, or of the trained part of one, with its teacher. UserError for an objective that has
    no distilled form, and for a teacher of another vocabulary or of other labels."""
    if isinstance(objective, Tuned):
        return objective.tuning.wrap(distilled(objective.objective, teacher))
    if isinstance(objective, Causal) and not hasattr(objective.model, "balanced_states"):
        _require_same(teacher.config, objective.config, "vocabulary")
        return DistilledCausal(objective, teacher)
    if isinstance(objective, Classification):
        for name in ("vocabulary", "labels"):
            _require_same(teacher.config, objective.config, name)
        return DistilledClassification(objective, teacher)
    raise UserError(
        "a distillation needs a language model without experts, or a classifier; train a smaller model instead"
    )


def _require_same(teacher: Any, student: Any, name: str) -> None:
    if getattr(teacher, name) != getattr(student, name):
        raise UserError(
            f"teacher and student must have the same {name}: {getattr(teacher, name)} and {getattr(student, name)}"
        )
