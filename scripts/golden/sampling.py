"""GEN: from logits to a token, and the loop around the model. Decisions are made on the exact values.

Every decision also yields its margin, the distance to the nearest tie (in logits, or in probability), so that a
case whose answer hangs on rounding is seen and not published.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mpmath import mpf

from golden.conventions import meets
from golden.families import MODELS
from golden.formulas import Array, shares
from golden.tape import constant
from golden.tree import Tree

Choice = tuple[int, Any]  # the token and the margin


def greedy(logits: list[Any]) -> Choice:
    """The largest logit; of equal ones the lowest index."""
    token = max(range(len(logits)), key=lambda i: (logits[i], -i))
    return token, min(_gaps(logits[token], logits), default=mpf("inf"))


def _gaps(level: Any, values: list[Any]) -> list[Any]:
    """The distances to the level. What is equal to it has no margin to lose: equal inputs are equal in every precision,
    and so are sums of shares like 1/4."""
    return [abs(level - x) for x in values if x != level]


def choose(
    logits: list[Any], *, temperature: float, top_k: int | None, top_p: float | None, uniform: float,
    top_k_ties: str = "lower-index", top_p_ties: str = "lower-index",
) -> Choice:  # fmt: skip
    """The token at the point `uniform` in [0, 1) of the distribution that temperature, top-k and top-p leave."""
    margins = []
    kept = _by_size(range(len(logits)), logits, top_k_ties)
    if top_k is not None and top_k < len(kept):
        margins += _gaps(logits[kept[top_k - 1]], logits)
        if logits[kept[top_k - 1]] == logits[kept[top_k]]:
            meets("top_k_ties")
        while top_k_ties == "all" and top_k < len(kept) and logits[kept[top_k]] == logits[kept[top_k - 1]]:
            top_k += 1
        kept = kept[:top_k]
    kept = _by_size(kept, logits, top_p_ties)
    weights = shares([constant(logits[i] / mpf(temperature)) for i in kept])
    p = [w.value for w in weights]
    if top_p is not None:
        sums = list(_running(p))
        count = next((n for n, s in enumerate(sums, start=1) if s >= top_p), len(sums))
        margins += _gaps(mpf(top_p), sums[:-1])
        if count < len(p) and p[count] == p[count - 1]:
            meets("top_p_ties")
        margins += _gaps(p[count - 1], p)  # which of two equals stays is settled by the index
        kept, p = kept[:count], [x / sums[count - 1] for x in p[:count]]
    order = sorted(range(len(kept)), key=lambda n: kept[n])
    sums = list(_running([p[n] for n in order]))
    margins += [abs(s - mpf(uniform)) for s in sums]
    place = next(n for n, s in enumerate(sums) if s > uniform)
    return kept[order[place]], min(margins)


def _by_size(tokens: Any, logits: list[Any], ties: str) -> list[int]:
    """The largest first; of equal ones that of the lower index, or of the higher."""
    return sorted(tokens, key=lambda i: (-logits[i], -i if ties == "higher-index" else i))


def _running(values: list[Any]) -> Any:
    s = mpf(0)
    for x in values:
        s += x
        yield s


def sample(
    logits: Array, *, temperature: float, top_k: int | None, top_p: float | None, uniforms: Array, **conventions: str
) -> dict[str, Any]:
    """One token for every row of logits."""
    ids, margins = np.empty(uniforms.shape, np.int64), []
    for i in np.ndindex(uniforms.shape):
        row = [x.value for x in logits[i]]
        how: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p, **conventions}
        ids[i], margin = choose(row, uniform=uniforms[i], **how)
        margins.append(margin)
    return {"ids": ids, "margin": _scalar(min(margins))}


def generate(
    p: Tree,
    *,
    ids: Array,
    config: Tree,
    new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    uniforms: Array | None,
    cache: bool,
    model: str = "gpt",
) -> dict[str, Any]:
    """The prompt (T,) and `new_tokens` more, and the logits of each step. The first step embeds the LAST token of
    the prompt (erratum E6). Greedy without uniforms. A cache changes the work and not the answer.

    A batch of prompts (B, T) has uniforms (B, new_tokens) and gives every row what it would be given alone.
    """
    if ids.ndim == 2:
        draws = [None] * len(ids) if uniforms is None else list(uniforms)
        how: dict[str, Any] = {
            "model": model,
            "config": config,
            "new_tokens": new_tokens,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
        }
        rows = [generate(p, ids=row, uniforms=u, cache=cache, **how) for row, u in zip(ids, draws, strict=True)]
        found = {name: np.stack([row[name] for row in rows]) for name in ("ids", "logits")}
        return {**found, "margin": min((row["margin"] for row in rows), key=lambda margin: margin.item().value)}
    del cache
    tokens, logits, margins = list(ids), [], []
    for n in range(new_tokens):
        answer: Any = MODELS[model](p, ids=np.array(tokens), config=config)
        if isinstance(answer, dict):  # a model that makes decisions of its own
            margins.append(answer["margin"].item().value)
            answer = answer["logits"]
        last = answer[-1]
        row = [x.value for x in last]
        if uniforms is None:
            token, margin = greedy(row)
        else:
            token, margin = choose(row, temperature=temperature, top_k=top_k, top_p=top_p, uniform=uniforms[n])
        tokens.append(token)
        logits.append(last)
        margins.append(margin)
    return {"ids": np.array(tokens, np.int64), "logits": np.stack(logits), "margin": _scalar(min(margins))}


def _scalar(x: Any) -> Array:
    return np.asarray(constant(x), dtype=object)
