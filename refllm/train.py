"""Training: one step, and the evaluation of a text. The run directory and the command line stand above this.

A step is: the batch cut into shards of rows, one a worker; each shard's loss, and its gradient in a flat vector of the
worker; their sum; its norm and the factor that clips it; AdamW on the flat vectors in place, a stretch a worker. The
trainer owns the parameters, the moments and the gradients, and is the one place that changes arrays in place.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from types import ModuleType
from typing import Any, Protocol

from refllm.backend import Array, device_namespace, generator, namespace, shared_zeros, to_device, to_host
from refllm.blocks.lm_head import LOGITS, maybe_capped
from refllm.errors import UserError
from refllm.kinds import settle_fields
from refllm.models.output import logit_cap
from refllm.moments import Moments, stretches
from refllm.ops.cross_entropy import cross_entropy
from refllm.ops.linear import matmul
from refllm.optim.clip import clip_factor, factor_of_parts, largest, square
from refllm.optim.update import adamw
from refllm.parameters import FlatTree, Tree, count, map_leaves, named_leaves, require_fit
from refllm.workers import Workers

MOMENTS = ("moment1", "moment2")
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


class Trainer:
    """Parameters, moments and step number of one training, and the workers that it runs on."""

    def __init__(
        self, *, model: Any, config: Any, objective: Objective, settings: Settings, workers: Workers
    ) -> None:  # of the model: shapes(config) and initial(config, generator)
        self.model, self.config, self.objective = model, config, objective
        self.settings, self.workers = settings, workers
        self.shapes = model.shapes(config)
        xp, size = device_namespace(settings.device), count(self.shapes)
        if 8 * size > sys.maxsize:
            raise UserError(f"no memory holds a model of {size:,} parameters; lower --width, --hidden or --layers")
        zeros = shared_zeros if settings.device == "cpu" else xp.zeros
        self.parameters, *self._gradients = (
            FlatTree(self.shapes, zeros(size, settings.dtype)) for _ in range(1 + workers.vectors)
        )
        kept = workers.kept(size)
        self.m, self.v = (Moments(self.shapes, kept, zeros(kept.stop - kept.start, settings.dtype)) for _ in range(2))
        self.gradient = self._gradients[0]  # the first worker's, to which the others' are added
        self.step_number = 0
        self.norm: Array = xp.zeros((), settings.dtype)
        self._everywhere: Callable[..., list[Any]] | None = None
        self._alike = False  # whether all workers have these parameters and moments

    def initialise(self) -> None:
        """Fresh parameters, drawn on the host from the seed."""
        fresh = self.model.initial(self.config, generator(self.settings.seed))
        self.load({"weights": dict(named_leaves(fresh))}, step=0)

    def load(self, groups: dict[str, dict[str, Array]], step: int) -> None:
        """Parameters and, where given, moments from host arrays by name. UserError if they do not fit the model."""
        if "weights" in groups:
            require_fit(self.shapes, groups["weights"])
            for path, view in self.parameters.views.items():
                view[...] = to_device(groups["weights"][path].astype(view.dtype), self.settings.device)
        for group in MOMENTS:
            if group in groups:
                require_fit(self.shapes, groups[group])
                self._load_moments(group, groups[group])
        self.step_number = step
        self._alike = False

    def _load_moments(self, group: str, arrays: dict[str, Array]) -> None:
        held = self._moments(group)
        for path, (place, _) in held.places.items():
            numbers = arrays[path].reshape(-1)
            for n in stretches(slice(0, len(numbers))):
                if self.workers.cut:
                    self._ask("_take_moments", group, place.start + n.start, numbers[n])
                else:
                    held.take(place.start + n.start, numbers[n])

    def groups(self) -> dict[str, dict[str, Any]]:
        """What a checkpoint holds. Moments of which every worker has a piece come piece by piece when they are read."""
        return {
            "weights": self.parameters.views,
            "moment1": self._leaves("moment1"),
            "moment2": self._leaves("moment2"),
        }

    def _leaves(self, group: str) -> dict[str, Any]:
        held = self._moments(group)
        if not self.workers.cut:
            return held.views
        return held.gathered(lambda n: namespace(held.vector).concatenate(self._ask("_moments_of", group, n)))

    def _moments(self, group: str) -> Moments:
        return self.m if group == MOMENTS[0] else self.v

    def _moments_of(self, part: int, group: str, n: slice) -> Array:
        """Those of the numbers n that this worker has."""
        return to_host(self._moments(group).held_of(n))

    def _take_moments(self, part: int, group: str, start: int, numbers: Array) -> None:
        """Of these numbers, which begin at `start`, those that this worker keeps."""
        self._moments(group).take(start, numbers)

    def _ask(self, *request: Any) -> list[Any]:
        """Every worker does its part in a phase."""
        if self._everywhere is None:
            self._everywhere = self.workers.crew(self._part, fork=self.settings.device == "cpu")
        return self._everywhere(*request)

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
        """The norm of the batch's gradient, and what clips it: of workers with memory of their own, from the squares of
        the piece that each has added up, so that it is the same whether the moments are cut or not."""
        if not self.workers.apart:
            return clip_factor([self.gradient.vector], limit=self.settings.clip)
        return factor_of_parts(
            lambda scale: squares if scale is None else self._ask("_square", scale),
            lambda: self._ask("_largest"), limit=self.settings.clip,
        )  # fmt: skip

    def _part(self, part: int, phase: str, *arguments: Any) -> Any:
        """A worker's part in a phase of a step."""
        return getattr(self, phase)(part, *arguments)

    def _shard(self, part: int, batch: Tree, totals: Any, shards: int, step: int) -> Array | None:
        """The part of the loss, and into this worker's vector of the gradient, of its rows of the batch."""
        if part >= shards:
            return None
        B = len(named_leaves(batch)[0][1])
        n = slice(B * part // shards, B * (part + 1) // shards)
        dropout_mask = self._dropout_draws(self.objective.dropout_shapes(batch), step)
        loss, back = self.objective.loss(
            self.parameters.tree,
            map_leaves(lambda x: to_device(x[n], self.settings.device) if self.workers.apart else x[n], batch),
            totals=totals,
            dropout_mask=None if dropout_mask is None else map_leaves(lambda x: x[n], dropout_mask),
        )
        for path, gradient in named_leaves(back(namespace(loss).ones((), loss.dtype))):
            self._gradients[self.workers.vector_of(part)].views[path][...] = gradient
        return self._sent(loss)

    def _sent(self, number: Array) -> Array:
        """As the other workers can have it: what is not of this process's memory goes by way of the host."""
        return to_host(number) if self.workers.apart else number

    def _sum_gradients(self, part: int, shards: int) -> Array | None:
        """The gradient of the batch, in all workers' vector or in this one's stretch of it; of a worker with memory of
        its own the squares of that."""
        self.workers.sum_shards([flat.vector for flat in self._gradients], part, shards)
        return self._square(part, None) if self.workers.apart else None

    def _square(self, part: int, scale: Array | None) -> Array:
        return self._sent(square(self.workers.own_sum(self.gradient.vector), scale))

    def _largest(self, part: int) -> Array:
        return self._sent(largest(self.workers.own_sum(self.gradient.vector)))

    def _update(self, part: int, factor: Array, lr: float, step: int) -> None:
        """Clipping and AdamW for this worker's stretch of the flat vectors, in place."""
        s, split, size = self.settings, self.parameters.split, len(self.parameters.vector)
        for section, decay in ((slice(0, split), s.decay), (slice(split, size), 0.0)):
            n = self.workers.stretch(part, section, size)
            p, g, m, v = self.parameters.vector[n], self.gradient.vector[n], self.m.of(n), self.v.of(n)
            g *= factor
            adamw(
                p, g, m, v, step=step, lr=lr, beta1=s.beta1, beta2=s.beta2, eps=s.eps, decay=decay,
                out=(p, m, v),
            )  # fmt: skip
        self.workers.join(self.parameters.vector)

    def _made_alike(self, part: int) -> None:
        """The first worker's parameters and moments, for workers with memory of their own."""
        for vector in self._same_everywhere():
            self.workers.spread(vector)

    def _same_everywhere(self) -> list[Array]:
        """The vectors that all workers have alike: not the moments of which each has a piece."""
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
