"""The choice of the next token from its logits."""

from __future__ import annotations

from typing import Any

from refllm.backend import Array, namespace, overflow_is_expected
from refllm.differentiable import declared_inputs, declared_kinds
from refllm.errors import UserError
from refllm.ops.softmax import softmax


@declared_kinds
def check_sampling(*, temperature: float, top_k: int | None, top_p: float | None) -> None:
    """UserError unless the three are what `choose` takes.

    >>> check_sampling(temperature=1.0, top_k=None, top_p=0.9)
    >>> check_sampling(temperature=0.0, top_k=None, top_p=None)
    Traceback (most recent call last):
    refllm.errors.UserError: ...
    """
    if not temperature > 0:
        raise UserError(f"temperature must be above 0, got {temperature}; for the most probable token use --greedy")
    if top_k is not None and top_k < 1:
        raise UserError(f"top-k must be at least 1, got {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"top-p must be above 0 and at most 1, got {top_p}")


@declared_inputs
def choose(
    logits: Array, *, temperature: float, top_k: int | None, top_p: float | None, uniforms: Array | None
) -> Array:
    """GEN: one token a row: the most probable one if `uniforms` is None, else drawn with them

    1. logits / temperature; 2. keep the top_k largest; 3. softmax; 4. keep the shortest list of most probable tokens
    whose sum reaches top_p, and divide by that sum; 5. the first token, in the order of the vocabulary, at which the
    cumulative probability exceeds the uniform. Of equal candidates the one with the lower index comes first.
    Source:  Fan et al. 2018 (arXiv:1805.04833) sec. 5.1 top-k; Holtzman et al. 2020 (arXiv:1904.09751) sec. 3.1 top-p;
             documents 002 sec. 3.2.
    Shapes:  logits (B, V); uniforms real (B,), or None -> ids (B,)
    Special: uniforms are in [0, 1). Computed in float64, whatever the model's dtype, so that a draw does not depend on
             it. The order is that of the logits, so that top_k = 1 and a tiny top_p are greedy even where rounding
             makes probabilities equal.
    Raises:  UserError as `check_sampling`.

    >>> z, how = np.log(array([[0.2, 0.5, 0.3]])), {"temperature": 1.0, "top_k": None, "top_p": None}
    >>> [choose(z, uniforms=u, **how).tolist() for u in (None, array([0.1]), array([0.6]), array([0.9]))]
    [[1], [0], [1], [2]]
    >>> choose(z, uniforms=array([0.1]), temperature=1.0, top_k=None, top_p=0.7).tolist()  # 0.5 and 0.3 are enough
    [1]
    """
    check_sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    xp = namespace(logits)
    if uniforms is None:
        return logits.argmax(axis=-1)
    z = logits.astype("float64")
    with overflow_is_expected():  # near temperature 0 all but the largest become -inf
        z = (z - z.max(axis=-1, keepdims=True)) / temperature
    V = z.shape[-1]
    if top_k is not None and top_k < V:
        z = xp.where(_rank(xp, logits) < top_k, z, -xp.inf)
    p, _ = softmax(z)
    if top_p is not None and top_p < 1:
        rank = _rank(xp, logits)
        descending = xp.take_along_axis(p, xp.argsort(rank, axis=-1), axis=-1)
        before = xp.cumsum(descending, axis=-1) - descending  # probability of the better candidates
        p = xp.where(xp.take_along_axis(before, rank, axis=-1) < top_p, p, 0)
        p /= p.sum(axis=-1, keepdims=True)
    beyond = xp.cumsum(p, axis=-1) > uniforms[:, None]
    last = V - 1 - (p[:, ::-1] > 0).argmax(axis=-1)  # should rounding leave the whole sum below the uniform
    return xp.where(beyond.any(axis=-1), beyond.argmax(axis=-1), last)


def _rank(xp: Any, z: Array) -> Array:
    """The place of each entry in descending order, ties by index."""
    order = xp.argsort(-z, axis=-1, kind="stable")
    rank = xp.empty_like(order)
    xp.put_along_axis(rank, order, xp.broadcast_to(xp.arange(z.shape[-1]), z.shape), axis=-1)
    return rank
