"""L1: scaled dot-product attention, its masks, and the errata E1 (the worked example) in both readings."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from golden.case import Case, Draw, bfloat16

SURE = [[1.0, 0.5], [1.25, -0.5], [0.75, 1.0]]  # queries that a key (2048, 1) meets with scores beyond 1000


def _case(
    id: str,
    about: str,
    *,
    T: int,
    S: int,
    D: int,
    E: int,
    batch: tuple[int, ...] = (),
    causal: bool = False,
    allowed: Any = None,
    scale: float = 1.0,
    given: Mapping[str, Any] = MappingProxyType({}),
    **more: Any,
) -> Case:
    """Inputs are drawn if they are not given."""
    draw = Draw(id)
    inputs = {
        "q": draw.normal(*batch, T, D, scale=scale),
        "k": draw.normal(*batch, S, D, scale=scale),
        "v": draw.normal(*batch, S, E),
    }
    inputs |= {name: np.array(array, dtype=np.float64) for name, array in given.items()}
    if allowed is not None:
        allowed = np.asarray(allowed, dtype=bool)
    return Case(id, "attention", about, inputs, {"causal": causal, "allowed": allowed}, **more)


def attention() -> list[Case]:
    padding = [[[True, True, True, False]], [[True, False, False, False]]]  # (B, 1, S): keys after the sentence's end
    sentences = np.array(
        [
            [[True, False, False], [True, True, False], [False, True, True]],
            [[True, False, True], [False, True, False], [True, True, False]],
        ]
    )
    holes = Draw("ATT-MASK/random-mask").mask(3, 5, true=0.5) | np.eye(3, 5, dtype=bool)
    return [
        _case("ATT/square", "as many queries as keys, d_k = 4", T=3, S=3, D=4, E=4),
        _case("ATT/more-keys-than-queries", "T < S and d_v != d_k", T=2, S=5, D=3, E=2),
        _case("ATT/more-queries-than-keys", "T > S and d_v > d_k", T=4, S=2, D=3, E=5),
        _case(
            "ATT/one-key",
            "one key: the weight is 1 whatever the score, and q and k have no gradient",
            T=3,
            S=1,
            D=5,
            E=2,
        ),
        _case("ATT/width-one", "d_k = 1: the scale is 1", T=3, S=3, D=1, E=2),
        _case("ATT/wide-key", "d_k = 16: without 1/sqrt(d_k) every score is 4 times too large", T=2, S=3, D=16, E=1),
        _case("ATT/no-batch", "an empty batch", T=2, S=3, D=2, E=2, batch=(0, 2)),
        _case("ATT/batch-and-heads", "two leading dimensions (B, H)", T=2, S=3, D=2, E=2, batch=(2, 2)),
        _case(
            "ATT/large-scores",
            "scores beyond 88: exp without the shift overflows float32",
            T=3,
            S=4,
            D=4,
            E=2,
            scale=12.0,
        ),
        _case(
            "ATT/uneven-queries",
            "one query with scores of thousands beside ordinary ones, one such head beside an ordinary one: the shift "
            "of the softmax is the maximum of the ROW",
            T=2,
            S=3,
            D=3,
            E=2,
            batch=(2,),
            given={"q": [[[2048.0, -1024.0, 1536.0], [1.0, 0.5, -0.75]], [[0.25, -1.0, 1.5], [0.5, 2.0, -0.25]]]},
        ),
        _case(
            "ATT/long",
            "520 keys, beyond a tile of 512: partial sums of tiles must be brought to one maximum; scores grow along "
            "the keys",
            T=2,
            S=520,
            D=1,
            E=1,
            given={"q": [[1.5], [-1.0]], "k": bfloat16(np.linspace(0.5, 4.0, 520))[:, None]},
        ),
        _case(
            "ATT/far-below-zero",
            "all scores far below 0: a running maximum that begins at a large negative number leaves nothing",
            T=1,
            S=3,
            D=4,
            E=2,
            given={
                "q": [[300.0, 300.0, 300.0, 0.5]],
                "k": [[-300.0, -300.0, -300.0, 0.0], [-300.0, -300.0, -300.0, 2.0], [-300.0, -300.0, -300.0, -4.0]],
            },
        ),
        _case("ATT-MASK/causal-square", "causal: query t sees keys 0..t", T=4, S=4, D=3, E=2, causal=True),
        _case(
            "ATT-MASK/causal-longer-keys",
            "causal with T < S: query t sees keys s <= t + S - T, as with a cache",
            T=2,
            S=5,
            D=3,
            E=2,
            causal=True,
        ),
        _case(
            "ATT-MASK/causal-one-query",
            "one new token after four cached ones sees all five keys",
            T=1,
            S=5,
            D=3,
            E=2,
            causal=True,
        ),
        _case(
            "ATT-MASK/causal-longer-queries",
            "causal with T > S: the first T - S queries see nothing and give zeros",
            T=5,
            S=3,
            D=2,
            E=2,
            causal=True,
        ),
        _case(
            "ATT-MASK/causal-batch-heads",
            "causal under leading dimensions (B, H)",
            T=3,
            S=3,
            D=2,
            E=3,
            batch=(2, 2),
            causal=True,
        ),
        _case(
            "ATT-MASK/causal-large-scores",
            "forbidden keys with the largest scores stay forbidden",
            T=4,
            S=4,
            D=4,
            E=2,
            causal=True,
            scale=12.0,
        ),
        _case(
            "ATT-MASK/causal-long",
            "causal over 66 queries, beyond a tile of 64 and of 32, and no multiple of either",
            T=66,
            S=66,
            D=1,
            E=1,
            causal=True,
        ),
        _case(
            "ATT-MASK/causal-large-future",
            "the score of a key in the future is larger by more than exp can bear: the maximum is over the keys seen",
            T=3,
            S=3,
            D=2,
            E=2,
            causal=True,
            given={"q": SURE, "k": [[0.5, -1.0], [1.0, 0.25], [2048.0, 1.0]]},
        ),
        _case(
            "ATT-MASK/large-forbidden",
            "the same with a forbidden key, which stands first",
            T=2,
            S=3,
            D=2,
            E=2,
            allowed=[[False, True, True]],
            given={"q": SURE[:2], "k": [[2048.0, 1.0], [1.0, 0.25], [0.5, -1.0]]},
        ),
        _case(
            "ATT-MASK/very-negative",
            "allowed scores of -20000 and less: a forbidden score set to -10000 instead of -infinity would win",
            T=2,
            S=3,
            D=1,
            E=2,
            allowed=[[True, False, True]],
            given={"q": [[-128.0], [-160.0]], "k": [[160.0], [128.0], [160.0]]},
        ),
        _case(
            "ATT-MASK/long-left-padding",
            "520 keys of which a query sees the last five alone: tiles without any key give no NaN",
            T=2,
            S=520,
            D=1,
            E=1,
            allowed=np.arange(520) >= np.array([[515], [70]]),
        ),
        _case(
            "ATT-MASK/own-per-sentence",
            "a mask (B, 1, T, S): every sentence has its own, shared by its heads; B = H, so that the axes can be "
            "mistaken",
            T=3,
            S=3,
            D=2,
            E=2,
            batch=(2, 2),
            allowed=sentences[:, None],
        ),
        _case(
            "ATT-MASK/own-per-head",
            "a mask (H, T, S): every head has its own, shared by the sentences; B = H",
            T=3,
            S=3,
            D=2,
            E=2,
            batch=(2, 2),
            allowed=sentences,
        ),
        _case(
            "ATT-MASK/cache-left-padding",
            "causal with T < S and padding on the left: a batch that is decoded with a cache",
            T=2,
            S=4,
            D=3,
            E=2,
            batch=(2,),
            causal=True,
            allowed=[[[False, False, False, True]], [[True, True, True, True]]],
        ),
        _case(
            "ATT-MASK/padding",
            "a mask (B, 1, S) broadcast over queries",
            T=3,
            S=4,
            D=3,
            E=2,
            batch=(2,),
            allowed=padding,
        ),
        _case("ATT-MASK/random-mask", "another set of keys for every query", T=3, S=5, D=4, E=2, allowed=holes),
        _case(
            "ATT-MASK/forbidden-row",
            "a query with no key left gives zeros and passes no gradient, not NaN",
            T=3,
            S=3,
            D=4,
            E=2,
            allowed=[[True, False, True], [False, False, False], [True, True, True]],
        ),
        _case(
            "ATT-MASK/all-forbidden",
            "no key for any query: zeros everywhere",
            T=2,
            S=3,
            D=2,
            E=2,
            allowed=[[False] * 3] * 2,
        ),
        _case(
            "ATT-MASK/causal-and-padding",
            "both masks: a key needs the leave of both",
            T=4,
            S=4,
            D=3,
            E=2,
            causal=True,
            allowed=[[True, True, False, True]],
        ),
        _case(
            "ATT-MASK/causal-left-padding",
            "padding on the left: the first query has no key left",
            T=3,
            S=3,
            D=3,
            E=2,
            causal=True,
            allowed=[[False, True, True]],
        ),
        *_errata(),
    ]


def _errata() -> list[Case]:
    keywords = {"causal": False, "allowed": None}
    row = {name: np.array([[a, a + 1, a + 2]]) for name, a in (("q", 1.0), ("k", 4.0), ("v", 7.0))}
    tokens = {name: array.T for name, array in row.items()}
    return [
        Case(
            "ATT/e1-one-query",
            "attention",
            "Q=[1,2,3] K=[4,5,6] V=[7,8,9] as one query and one key of width 3: the score is 32/sqrt(3), "
            "the softmax of one score is 1, the output is V",
            row,
            keywords,
            taps=True,
            erratum="E1",
            printed={"score": 18.26, "weights": [0.2, 0.6, 0.2]},
        ),
        Case(
            "ATT/e1-three-tokens",
            "attention",
            "Q=[1,2,3] K=[4,5,6] V=[7,8,9] as three tokens of width 1: d_k = 1, the first query's weights are "
            "softmax([4,5,6])",
            tokens,
            keywords,
            taps=True,
            erratum="E1",
            printed={"weights": [0.2, 0.6, 0.2]},
        ),
        _case(
            "ATT/e3-key-width-per-head",
            "d_k is the key width of one head, here 4, not the embedding dimension 8",
            T=2,
            S=3,
            D=4,
            E=4,
            batch=(2,),
            erratum="E3",
            printed={"d_k": 8},
        ),
    ]
