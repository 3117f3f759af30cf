"""Training: one step, and the evaluation of a text. The run directory and the command line stand above this.

A step is: the batch cut into shards of rows, one a worker; each shard's loss, and its gradient in a flat vector of the
worker; their sum; its norm and the factor that clips it; AdamW on the flat vectors in place, a stretch a worker. The
trainer owns the parameters, the moments and the gradients, and is the one place that changes arrays in place.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from types import ModuleType
from typing import Any, Protocol

from refllm.backend import Array, device_namespace, generator, namespace, to_device, to_host
from refllm.blocks.lm_head import LOGITS, maybe_capped
from refllm.cut_parameters import in_layers
from refllm.errors import UserError
from refllm.holding import Holding
from refllm.kinds import settle_fields
from refllm.models.output import logit_cap
from refllm.ops.cross_entropy import cross_entropy
from refllm.ops.linear import matmul
from refllm.optim.clip import clip_factor, factor_of_parts, largest, square
from refllm.optim.update import adamw
from refllm.parameters import Tree, count, map_leaves, named_leaves
from refllm.workers import Workers

_DROPOUT_STREAM = 1 << 20  # the streams of a seed: 0 initial weights, 1 data order, this + step the draws of dropout

# A smaller gradient leaves no second moment, since its square times 1 - beta2 is 0: eps alone divides it.
LEAST_EPS = {"float32": 1e-20, "float64": 1e-158}


@dataclass(frozen=True)
class Settings:
    """How to train, apart from what: everything a step depends on."""

    batch: int
    lr: float  # the peak
    warmup: float  # share of the run
    floor: float  # share of the peak
    beta1: float
    beta2: float
    eps: float
    decay: float
    clip: float
    seed: int
    shards: int
    dtype: str
    device: str
    tf32: bool = False
    blas_threads: int = 1  # of each worker

    def __post_init__(self) -> None:
        settle_fields(self)
        for name in ("batch", "shards"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise UserError(f"lr must be a positive number, got {self.lr}")
        if not 0 <= self.warmup <= 1 or not 0 <= self.floor <= 1:
            raise UserError(f"warmup and floor are shares between 0 and 1, got {self.warmup} and {self.floor}")
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and 0 < self.eps < math.inf and 0 <= self.decay < math.inf):
            raise UserError("beta1 and beta2 must be in [0, 1), eps above 0, decay not negative; all of them finite")
        least = LEAST_EPS.get(self.dtype, 0.0)
        if self.eps < least:
            raise UserError(
                f"eps {self.eps:g} is too small for {self.dtype}: it alone divides a gradient whose square is 0 there; "
                f"give {least:g} or more"
            )
        if self.seed < 0:
            raise UserError(f"seed must not be negative, got {self.seed}")
        if not self.clip > 0:
            raise UserError(f"clip must be above 0 (inf switches it off), got {self.clip}")

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Objective(Protocol):
    """What is learnt: the loss of a batch, a tree of arrays (B, ...), with the model and its configuration inside."""

    def totals(self, batch: Tree) -> Any:
        """What the loss divides by, counted on the host over the WHOLE batch, so that the shards' losses add up."""
        ...

    def dropout_shapes(self, batch: Tree) -> Tree:
        """The shapes (B, ...) of the draws of dropout, a tree like the layers, in the order of their use."""
        ...

    def loss(
        self, p: Tree, batch: Tree, *, totals: Any, dropout_mask: Tree | None
    ) -> tuple[Array, Callable[[Array], Tree]]:
        """The share of these rows in the mean loss of the batch, and its pullback to the parameters."""
        ...


class Trainer(Holding):
    """One training: what it holds, and its steps on the workers that it runs on."""

    def __init__(
        self, *, model: Any, config: Any, objective: Objective, settings: Settings, workers: Workers
    ) -> None:  # of the model: shapes(config) and initial_leaves(config, generator)
        layered = in_layers(model)
        model = layered if workers.layered else model
        super().__init__(model.shapes(config), settings, workers, in_layers=layered.shapes(config))
        self.model, self.config, self.objective = model, config, objective
        self.norm: Array = device_namespace(settings.device).zeros((), settings.dtype)

    def initialise(self) -> None:
        """Fresh parameters, drawn on the host from the seed, a leaf at a time."""
        self.load_weights(self.model.initial_leaves(self.config, generator(self.settings.seed)))

    def step(self, batch: Tree, *, lr: float) -> Array:
        """One step on `batch`, host arrays (B, ...) in a tree; the mean loss, left on the device."""
        if self.workers.apart and not self._alike:
            self._ask("_made_alike")
            self._alike = True
        self.step_number += 1
        shards = min(self.workers.shards(self.settings.shards), len(named_leaves(batch)[0][1]))
        totals = self.objective.totals(batch)
        if not self.workers.apart:
            batch = map_leaves(lambda x: to_device(x, self.settings.device), batch)  # the one transfer without dropout
        losses = self._ask("_shard", batch, totals, shards, self.step_number)
        loss: Array = sum(losses[:shards])
        squares = self._ask("_sum_gradients", shards)
        self.norm, factor = self._norm_and_factor(squares)
        self._ask("_update", factor, lr, self.step_number)
        return loss

    def _norm_and_factor(self, squares: list[Array]) -> tuple[Array, Array]:
        """The norm of the batch's gradient, and what clips it: of workers with memory of their own from the squares of
        runs that are the same whatever is cut over them, in the order of the vector."""
        if not self.workers.apart:
            return clip_factor([self.gradient.vector], limit=self.settings.clip)
        return factor_of_parts(
            lambda scale: self._in_order(squares if scale is None else self._ask("_square", scale)),
            lambda: self._ask("_largest"), limit=self.settings.clip,
        )  # fmt: skip

    def _in_order(self, squares: list[Array]) -> list[Array]:
        """The squares of all workers, by where their runs are in the vector."""
        starts = [run.start for runs in self._squared for run, _ in runs]
        numbers = [number for of_part in squares for number in of_part]
        return [number for _, number in sorted(zip(starts, numbers, strict=True), key=lambda pair: pair[0])]

    def _shard(self, part: int, batch: Tree, totals: Any, shards: int, step: int) -> Array | None:
        """The part of the loss, and into this worker's vector of the gradient, of its rows of the batch."""
        there = part < shards
        if not there and not self.workers.layered:
            return None
        n = self._rows(batch, min(part, shards - 1), shards)
        dropout_mask = self._dropout_draws(self.objective.dropout_shapes(batch), step)
        with self._gradient_taken(part, adds=there) as (p, take):
            loss, back = self.objective.loss(
                p,
                map_leaves(lambda x: to_device(x[n], self.settings.device) if self.workers.apart else x[n], batch),
                totals=totals,
                dropout_mask=None if dropout_mask is None else map_leaves(lambda x: x[n], dropout_mask),
            )
            take(back(namespace(loss).ones((), loss.dtype)))
        return self._sent(loss) if there else None

    def _rows(self, batch: Tree, part: int, shards: int) -> slice:
        B = len(named_leaves(batch)[0][1])
        return slice(B * part // shards, B * (part + 1) // shards)

    @contextmanager
    def _gradient_taken(self, part: int, *, adds: bool) -> Iterator[tuple[Tree, Callable[[Tree], None]]]:
        """The parameters of a step, and what takes their gradient. Where layers are gathered, a worker without rows
        goes through them as the others do, and adds nothing."""
        if self.cut is not None:
            self.cut.begin(adds=adds)
            with self.cut.lent() as p:
                yield p, self.cut.finish
            return
        views = self._gradients[self.workers.vector_of(part)].views

        def take(gradient: Tree) -> None:
            for path, leaf in named_leaves(gradient):
                views[path][...] = leaf

        yield self.parameters.tree, take

    def _sent(self, number: Array) -> Array:
        """As the other workers can have it: what is not of this process's memory goes by way of the host."""
        return to_host(number) if self.workers.apart else number

    def _sum_gradients(self, part: int, shards: int) -> Array | None:
        """The gradient of the batch, in all workers' vector or in this one's stretch of it; of a worker with memory of
        its own the squares of that."""
        if not self.workers.layered:
            self.workers.sum_shards([flat.vector for flat in self._gradients], part, shards)
        return self._square(part, None) if self.workers.apart else None

    def _own_sum(self) -> Array:
        """Of the gradient what this worker has added up."""
        if self.cut is not None:
            return self.cut.gradient
        own: Array = self.workers.own_sum(self.gradient.vector)
        return own

    def _square(self, part: int, scale: Array | None) -> Array:
        own = self._own_sum()
        squares = [square(own[n], scale) for _, n in self._squared[part]]
        return self._sent(namespace(own).stack(squares) if squares else own[:0])

    def _largest(self, part: int) -> Array:
        return self._sent(largest(self._own_sum()))

    def _update(self, part: int, factor: Array, lr: float, step: int) -> None:
        """Clipping and AdamW for this worker's stretch of the flat vectors, in place."""
        s = self.settings
        for p, g, m, v, decay in self._stretches(part):
            g *= factor
            adamw(
                p, g, m, v, step=step, lr=lr, beta1=s.beta1, beta2=s.beta2, eps=s.eps, decay=decay,
                out=(p, m, v),
            )  # fmt: skip
        if self.cut is None:
            self.workers.join(self.parameters.vector)

    def _stretches(self, part: int) -> Iterator[tuple[Array, Array, Array, Array, float]]:
        """Parameters, gradient, moments and decay of what this worker updates."""
        decay = self.settings.decay
        if self.cut is not None:
            vectors = (self.cut.own.vector, self.cut.gradient, self.m.vector, self.v.vector)
            for run, n in self.cut.own.kept:
                p, g, m, v = (vector[n] for vector in vectors)
                yield p, g, m, v, decay if run.start < self.cut.split else 0.0
            return
        split = self.parameters.split
        size = len(self.parameters.vector)
        for section, of_section in ((slice(0, split), decay), (slice(split, size), 0.0)):
            n = self.workers.stretch(part, section, size)
            yield self.parameters.vector[n], self.gradient.vector[n], self.m.of(n), self.v.of(n), of_section

    def _made_alike(self, part: int) -> None:
        """The first worker's parameters and moments, for workers with memory of their own."""
        for vector in self._same_everywhere():
            self.workers.spread(vector)

    def _same_everywhere(self) -> list[Array]:
        """The vectors that all workers have alike: not the moments of which each has a piece."""
        if self.cut is not None:
            return []
        return [self.parameters.vector, *([] if self.workers.cut else [self.m.vector, self.v.vector])]

    def _fingerprint(self, part: int) -> str:
        digest = hashlib.sha256()
        for vector in self._same_everywhere():
            digest.update(to_host(vector).data)
        return digest.hexdigest()

    def require_alike(self) -> None:
        """UserError unless all workers have the same parameters and moments, to the bit."""
        if not (self.workers.apart and self._alike):
            return
        first, *others = self._ask("_fingerprint")
        wrong = [rank for rank, other in enumerate(others, start=1) if other != first]
        if wrong:
            raise UserError(
                f"after step {self.step_number} the weights of rank {wrong[0]} are not those of rank 0: the machines "
                "compute differently (another processor or NumPy), or a memory is faulty; these steps are not saved"
            )

    def _dropout_draws(self, shapes: Tree, step: int) -> Tree | None:
        """Boolean draws for every use of dropout, from 16 bits each: below 2^16 (1 - rate) keeps. One transfer."""
        rate = self.config.dropout
        if rate == 0:
            return None
        draws = generator(self.settings.seed, _DROPOUT_STREAM + step)
        drawn = draws.integers(0, 1 << 16, size=count(shapes), dtype="uint16")
        flat = to_device(drawn < round((1 << 16) * (1 - rate)), self.settings.device)
        ends = accumulate(math.prod(shape) for _, shape in named_leaves(shapes))
        return map_leaves(lambda shape: flat[(end := next(ends)) - math.prod(shape) : end].reshape(shape), shapes)


def negative_log_likelihood(
    p: Tree, *, model: ModuleType, config: Any, ids: Array, targets: Array, ignore: int
) -> Array:
    """NLL of the targets (B, T) that are not ignored, a block of logits at a time, without a gradient."""
    h, _ = model.hidden_states(p, ids=ids, config=config, dropout_mask=None, cache=None)
    W, rows = model.head(p, config), h.reshape(-1, h.shape[-1])
    flat, size = targets.reshape(-1), max(1, LOGITS // W.shape[1])
    total = namespace(h).zeros((), "float64")
    for start in range(0, len(rows), size):
        n = slice(start, start + size)
        logits, _ = maybe_capped(matmul(rows[n], W)[0], cap=logit_cap(config))
        total = total + cross_entropy(logits, targets=flat[n], ignore=ignore, reduction="sum")[0]
    return total


def evaluate(
    p: Tree, windows: Sequence[tuple[Array, Array]], *, model: ModuleType, config: Any, device: str, workers: Workers
) -> float:
    """Total NLL in nats over windows of (ids, targets), each (B, T), targets of -1 not counted."""

    def one(number: int) -> float:
        ids, targets = (to_device(part, device) for part in windows[number])
        nll = negative_log_likelihood(p, model=model, config=config, ids=ids, targets=targets, ignore=-1)
        return float(to_host(nll))

    return sum(workers.map(one, range(len(windows))))


def refuse_divergence(number: float, *, step: int, remedy: str) -> None:
    """UserError if a loss, or a sum with one, is infinite or not a number."""
    if not math.isfinite(number):
        raise UserError(f"the loss is no longer a number at step {step}: the training diverged; {remedy}")
