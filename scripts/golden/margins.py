"""How far the nearest decision of a case is from a tie, so that one whose answer hangs on rounding is not published.

Tokens and experts are chosen by comparing numbers, each of which is an input, an output or a tap of the plain text.
What is equal has no margin to lose: equal inputs are equal in every precision, and so are sums of shares like 1/4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from mpmath import mp, mpf

from golden.evaluate import Answer
from refllm.numbers.exact import Exact, lift
from refllm.numbers.nodes import number
from refllm.spec.array import exp, top
from refllm.spec.softmax import softmax


def margin(
    operation: str, inputs: Mapping[str, Any], keywords: Mapping[str, Any], found: Answer, how: Mapping[str, str]
) -> Any:
    """The least margin of all decisions, under these conventions; infinite where nothing is decided."""
    margins = [*of_experts(found.taps), *of_beams(found.taps)]
    if operation == "sample":
        margins += of_tokens(lift(inputs["logits"]), {**keywords, **how})
    elif operation == "quantised":
        margins += of_halves(lift(inputs["W"]) / found.outputs["s"])
    elif operation == "top_experts":
        margins += of_largest(lift(inputs["scores"]), keywords["k"])
    elif operation == "min_p":
        margins += of_shares(lift(inputs["logits"]), keywords["share"])
    elif operation == "lion":
        margins += of_signs(lift(inputs["m"]), lift(inputs["g"]), lift(keywords["beta1"]))
    elif operation == "yarn_frequencies":
        margins += of_turns(found.taps["turns"], keywords)
    elif operation in ("generate", "generate_padded"):
        margins += of_tokens(found.outputs["logits"], keywords)
    elif operation == "translate":
        ids, logits = found.outputs["ids"], found.outputs["logits"]
        margins += [gap for row, there in zip(logits, ids >= 0, strict=True) for gap in of_tokens(row[there], {})]
    return min(margins, default=mpf("inf"))


def gaps(level: Any, values: Iterable[Any]) -> list[Any]:
    """The distances to the level of what is not equal to it."""
    return [abs(level - x) for x in values if x != level]


def of_experts(taps: Mapping[str, Any]) -> list[Any]:
    """In scores, of the largest to the others."""
    rows = [row for name, x in taps.items() if name.endswith("scores") for row in values(x).reshape(-1, x.shape[-1])]
    return [gap for row in rows for gap in gaps(max(row), row)]


def of_beams(taps: Mapping[str, Any]) -> list[Any]:
    """In log P or in scores, of neighbours in the order; and of the best that could still come to the worst kept."""
    ranked = [x for name, x in taps.items() if {"sums", "finished"} & set(name.split("."))]
    bounds = [abs(a - b) for name, x in taps.items() if "bound" in name.split(".") for a, b in pairwise(values(x))]
    return [a - b for x in ranked for a, b in pairwise(values(x))] + bounds


def of_halves(x: Any) -> list[Any]:
    """Of what is rounded, to the half between two whole numbers; a rule decides on a half itself."""
    return [gap for n in x.nodes.flat for gap in gaps(mp.floor(n.value) + mpf("0.5"), [n.value])]


def of_largest(scores: Any, k: int) -> list[Any]:
    """In scores, of the k-th largest to the others, where there are others that it keeps out."""
    rows = [sorted(values(row)) for row in scores.reshape(-1, scores.shape[-1])]
    return [gap for row in rows if 0 < k < len(row) for gap in gaps(row[-k], row)]


def of_shares(logits: Any, share: float) -> list[Any]:
    """In shares of the largest probability, of each to the least that stays; none is below a share of 0."""
    rows = logits.reshape(-1, logits.shape[-1]) if share > 0 else []
    return [gap for row in rows for gap in gaps(mpf(share), values(exp(row - top(row))))]


def of_signs(m: Any, g: Any, beta: Any) -> list[Any]:
    """Of the interpolated momentum to 0, at which the sign turns."""
    return gaps(mpf(0), values((beta * m + (1 - beta) * g).reshape(-1)))


def of_turns(turns: Any, keywords: Mapping[str, Any]) -> list[Any]:
    """Of every pair's number of turns, to both borders, as a share of these."""
    borders = [number(keywords[name]) for name in ("beta_fast", "beta_slow")]
    return [abs(n / border - 1) for n in values(turns) for border in borders]


def of_tokens(logits: Any, keywords: Mapping[str, Any]) -> list[Any]:
    """In logits where the largest is taken, or the largest few; in probability where a number is drawn."""
    uniforms = keywords.get("uniforms")
    rows = logits.reshape(-1, logits.shape[-1])
    if uniforms is None:
        return [gap for row in rows for gap in gaps(max(values(row)), values(row))]
    how = {name: keywords[name] for name in ("temperature", "top_k", "top_p")}
    how |= {name: keywords[name] for name in ("top_k_ties", "top_p_ties") if name in keywords}
    return [gap for row, u in zip(rows, np.ravel(uniforms), strict=True) for gap in of_draw(row, **how, uniform=u)]


def of_draw(
    logits: Any, *, temperature: Any, top_k: int | None, top_p: Any, uniform: Any,
    top_k_ties: str = "lower-index", top_p_ties: str = "lower-index",
) -> list[Any]:  # fmt: skip
    """The borders that `choose` draws: the last of top-k, the sum of top-p and the last in it, every running sum."""
    z, found = values(logits), []
    kept = by_size(range(len(z)), z, top_k_ties)
    if top_k is not None and top_k < len(kept):
        found += gaps(z[kept[top_k - 1]], z)
        last = z[kept[top_k - 1]]
        kept = [i for i in kept if z[i] >= last] if top_k_ties == "all" else kept[:top_k]
    kept = by_size(kept, z, top_p_ties)
    p = values(softmax(logits[kept] / temperature)[0])
    if top_p is not None:
        sums = running(p)
        count = next((n for n, s in enumerate(sums, start=1) if s >= number(top_p)), len(sums))
        found += gaps(mpf(number(top_p)), sums[:-1]) + gaps(p[count - 1], p)
        kept, p = kept[:count], [x / sums[count - 1] for x in p[:count]]
    by_number = sorted(range(len(kept)), key=kept.__getitem__)
    sums = running([p[n] for n in by_number])  # of what is impossible: 0 in every precision
    return found + [abs(s - mpf(uniform)) for s in sums if s > 0 or uniform > 0]


def by_size(tokens: Iterable[int], z: Any, ties: str) -> list[int]:
    """The largest first; of equal ones that of the lower index, or of the higher."""
    return sorted(tokens, key=lambda i: (-z[i], -i if ties == "higher-index" else i))


def running(p: Iterable[Any]) -> list[Any]:
    sums, s = [], mpf(0)
    for x in p:
        s += x
        sums.append(s)
    return sums


def values(x: Any) -> Any:
    return x.values() if isinstance(x, Exact) else x
