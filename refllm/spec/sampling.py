"""From logits to a token. Every decision is a comparison of numbers, whatever their kind."""

from collections.abc import Callable, Sequence

from refllm.spec.array import Array, integers, total
from refllm.spec.softmax import softmax


def greedy(logits: Array) -> int:
    """GEN: the token with the largest logit; of equal ones the first

    Source:  documents 002 sec. 3.2.
    Shapes:  logits (V,)

    >>> greedy(array([1., 3., 3.]))
    1
    """
    return descending(logits)[0]


def descending(x: Array) -> list[int]:
    """The places of all entries, from the largest to the smallest; of equal ones the first comes first."""
    return sorted(range(len(x)), key=lambda i: -x[i])


def choose(logits: Array, *, temperature: float, top_k: int | None, top_p: float | None, uniform: float) -> int:
    """GEN: the token at the point `uniform` in [0, 1) of the distribution that temperature, top-k and top-p leave

    Divide by the temperature; keep the `top_k` largest; softmax; keep the shortest prefix, the most probable first,
    whose sum reaches `top_p`, and divide by its sum. Then the first token, in the order of their numbers, at which the
    running sum is larger than `uniform`.
    Source:  Fan et al. 2018 (arXiv:1805.04833) for top-k; Holtzman et al. 2020 (arXiv:1904.09751) for top-p; documents
             002 sec. 3.2.
    Shapes:  logits (V,)

    >>> p = array([0.5, 0.25, 0.125, 0.125])
    >>> choose(log(p), temperature=1., top_k=None, top_p=0.6, uniform=0.7)  # of p = 2/3, 1/3
    1
    """
    kept = descending(logits)[:top_k]
    p, _ = softmax(logits[kept] / temperature)
    if top_p is not None:
        n = first(running(p), lambda s: s >= top_p)
        kept, p = kept[: n + 1], p[: n + 1] / total(p[: n + 1])
    by_number = sorted(range(len(kept)), key=kept.__getitem__)
    return kept[by_number[first(running(p[by_number]), lambda s: s > uniform)]]


def running(p: Array) -> list[Array]:
    """p_1, p_1 + p_2, ..."""
    return [total(p[: n + 1]) for n in range(len(p))]


def first(sums: Sequence[Array], holds: Callable[[Array], bool]) -> int:
    """The place of the first for which it holds; the last, should rounding leave none."""
    return next((n for n, s in enumerate(sums) if holds(s)), len(sums) - 1)


def sample(logits: Array, *, temperature: float, top_k: int | None, top_p: float | None, uniforms: Array) -> Array:
    """GEN: one token for every row of logits

    Source:  as `choose`.
    Shapes:  logits (B, V); uniforms (B,) -> ids (B,)
    """
    return integers([
        choose(row, temperature=temperature, top_k=top_k, top_p=top_p, uniform=u)
        for row, u in zip(logits, uniforms, strict=True)
    ])  # fmt: skip
