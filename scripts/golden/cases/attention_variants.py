"""L1: attention with windows, packed documents, soft caps, sinks, its log-sum-exp, and normed queries."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw

LOUD = [[12.0, -20.0, 7.5], [0.5, 1.0, -0.25], [-16.0, 9.0, 30.0]]  # rows whose scores reach the hundreds


def _qkv(id: str, T: int, S: int, D: int, E: int, batch: tuple[int, ...] = (), scale: float = 1.0) -> dict[str, Any]:
    draw = Draw(id)
    return {
        "q": draw.normal(*batch, T, D, scale=scale),
        "k": draw.normal(*batch, S, D, scale=scale),
        "v": draw.normal(*batch, S, E),
    }


def _allowed(mask: Any) -> Any:
    return None if mask is None else np.asarray(mask, dtype=bool)


def sliding_window_attention() -> list[Case]:
    def case(slug: str, about: str, T: int, S: int, window: int, batch: tuple[int, ...] = (), allowed: Any = None,
             D: int = 3, E: int = 2) -> Case:  # fmt: skip
        id = f"WIN/{slug}"
        keywords = {"window": window, "allowed": _allowed(allowed)}
        return Case(id, "sliding_window_attention", about, _qkv(id, T, S, D, E, batch), keywords)

    return [
        case("three-of-six", "a query sees itself and the two keys before it: three, not four", 6, 6, 3),
        case("one", "a window of 1: a query sees itself alone, y = v", 4, 4, 1),
        case("two", "a window of 2", 5, 5, 2),
        case("as-long-as-the-text", "a window of T is causal attention", 4, 4, 4),
        case("longer-than-the-text", "and so is a longer one", 4, 4, 100),
        case("cache", "T < S: the window counts back from the query's own place among the keys", 2, 7, 3),
        case("cache-one-query", "one new token after six cached ones sees the last four of seven keys", 1, 7, 4),
        case("more-queries", "T > S: the first queries stand before every key and give zeros", 5, 3, 2),
        case("heads", "two leading axes (B, H)", 4, 4, 2, (2, 2)),
        case("padding", "a mask too: the padded key at the end of the window is not seen", 4, 4, 2, (2,),
             [[[True, True, True, False]], [[True, True, True, True]]]),
        case("left-padding", "padding on the left: a query whose window is all padding gives zeros", 5, 5, 2, (),
             [[False, False, True, True, True]]),
        case("beyond-a-tile", "70 keys and a window of 33, no multiples of 32", 70, 70, 33, (), None, 1, 1),
    ]  # fmt: skip


def packed_attention() -> list[Case]:
    def case(slug: str, about: str, borders: list[int], T: int, causal: bool = True, key_borders: Any = None,
             S: int | None = None, batch: tuple[int, ...] = ()) -> Case:  # fmt: skip
        id = f"PACK/{slug}"
        keywords = {
            "borders": np.array(borders),
            "key_borders": np.array(borders if key_borders is None else key_borders),
            "causal": causal,
        }
        return Case(id, "packed_attention", about, _qkv(id, T, T if S is None else S, 3, 2, batch), keywords)

    return [
        case("two-documents", "documents of 3 and 2 tokens, causal in each", [0, 3, 5], 5),
        case("both-ways", "not causal: every token sees its whole document and nothing else", [0, 3, 5], 5, False),
        case("one-document", "one document is causal attention", [0, 4], 4),
        case("single-tokens", "documents of one token: y = v", [0, 1, 2, 3], 3),
        case("uneven", "1, 4 and 2 tokens", [0, 1, 5, 7], 7),
        case("empty-document", "a document without tokens: two equal borders", [0, 2, 2, 5], 5),
        case("padding", "two places behind the last border: zeros, and nobody sees them", [0, 2, 4], 6),
        case("padding-both-ways", "the same, not causal", [0, 2, 4], 6, False),
        case("own-borders", "queries and keys with borders of their own, as with a cache: the last query of each "
             "document sees its last key", [0, 1, 3], 3, True, [0, 4, 6], 6),
        case("more-queries", "more queries than keys in a document: its first see nothing", [0, 3, 5], 5, True,
             [0, 1, 4], 4),
        case("heads", "two leading axes, one packing", [0, 2, 5], 5, True, None, None, (2, 2)),
        case("beyond-a-tile", "documents of 33 and 37 tokens", [0, 33, 70], 70),
    ]  # fmt: skip


def packed_positions() -> list[Case]:
    def case(slug: str, about: str, borders: list[int], places: int) -> Case:
        keywords = {"borders": np.array(borders), "places": places}
        return Case(f"PACK/positions-{slug}", "packed_positions", about, {}, keywords, gradient=False)

    return [
        case("two-documents", "0, 1, 2, 0, 1: they begin anew", [0, 3, 5], 5),
        case("one-document", "one document: 0 to 3", [0, 4], 4),
        case("single-tokens", "zeros", [0, 1, 2, 3], 3),
        case("empty-document", "a document without tokens", [0, 2, 2, 5], 5),
        case("empty-first", "the first has none", [0, 0, 3], 3),
        case("padding", "0 behind the last border", [0, 2, 4], 7),
        case("uneven", "1, 4 and 2 tokens", [0, 1, 5, 7], 7),
        case("no-document", "no document: padding alone", [0], 2),
    ]


def soft_cap() -> list[Case]:
    def case(slug: str, about: str, x: Any, cap: float) -> Case:
        return Case(f"CAP/{slug}", "soft_cap", about, {"x": np.asarray(x, dtype=np.float64)}, {"cap": cap})

    def draw(*shape: int, scale: float = 1.0) -> Any:
        return Draw(f"CAP/{shape}").normal(*shape, scale=scale)

    return [
        case("scores", "the cap of Gemma 2's scores", draw(3, 5, scale=40.0), 50.0),
        case("logits", "the cap of its logits", draw(2, 7, scale=20.0), 30.0),
        case("one", "a cap of 1: tanh", draw(6), 1.0),
        case("below-one", "a cap of 1/4", draw(2, 3), 0.25),
        case("near-zero", "far below the cap x stays: 2^-20 of a cap of 50", [2.0**-20, -(2.0**-30), 0.0], 50.0),
        case("far", "far above the cap y is the cap and the gradient all but 0", [400.0, -1000.0, 4096.0], 50.0),
        case("at-the-cap", "x = cap gives cap tanh(1), not cap", [50.0, -50.0], 50.0),
        case("uneven-cap", "a cap that no binary number holds", draw(4, scale=0.5), 0.7),
        case("batch", "three axes", draw(2, 2, 3, scale=30.0), 20.0),
        case("empty", "nothing", np.zeros((0, 3)), 50.0),
    ]


def _masked(spec: str, operation: str, slug: str, about: str, sizes: tuple[int, int], batch: tuple[int, ...] = (),
            causal: bool = False, allowed: Any = None, scale: float = 1.0, D: int = 3, E: int = 2,
            given: Any = None, **how: Any) -> Case:  # fmt: skip
    """A case of an attention that has the masks of `attention`."""
    id = f"{spec}/{slug}"
    inputs = _qkv(id, *sizes, D, E, batch, scale) | {n: np.array(x, dtype=np.float64) for n, x in (given or {}).items()}
    return Case(id, operation, about, inputs, {**how, "causal": causal, "allowed": _allowed(allowed)})


def capped_attention() -> list[Case]:
    def case(slug: str, about: str, *sizes: int, cap: float = 50.0, **how: Any) -> Case:
        return _masked("CAP", "capped_attention", f"attention-{slug}", about, (sizes[0], sizes[1]), cap=cap, **how)

    return [
        case("square", "scores far below the cap", 3, 3),
        case("bent", "a cap of 2, within the scores", 3, 4, cap=2.0, scale=2.0),
        case("low", "a cap of 1/2: all keys have nearly the same weight", 3, 3, cap=0.5, scale=3.0),
        case("loud", "scores of hundreds: capped, no key has all of the weight", 3, 3, given={"q": LOUD}, scale=4.0,
             cap=8.0),
        case("width-sixteen", "d_k = 16: the scale comes before the cap", 2, 3, D=16, cap=1.5, scale=1.5),
        case("causal", "causal: capped after it, a forbidden key would have the weight of -cap", 4, 4, causal=True,
             cap=1.0),
        case("cache", "causal with T < S", 2, 5, causal=True, cap=2.0, scale=2.0),
        case("mask", "a key forbidden by a mask", 3, 4, allowed=[[True, False, True, True]], cap=1.0),
        case("both-masks", "causal and padding on the left: the first query has no key left", 3, 3, causal=True,
             allowed=[[False, True, True]], cap=2.0),
        case("forbidden-row", "a query with no key gives zeros", 2, 3, allowed=[[False] * 3, [True] * 3], cap=1.0),
        case("heads", "two leading axes", 3, 3, batch=(2, 2), cap=2.0, scale=2.0),
        case("one-key", "one key: the weight is 1", 2, 1, cap=1.0),
    ]  # fmt: skip


def sink_attention() -> list[Case]:
    def case(slug: str, about: str, *sizes: int, sink: list[float], batch: tuple[int, ...] = (), **how: Any) -> Case:
        made = _masked("SINK", "sink_attention", slug, about, (sizes[0], sizes[1]), (*batch, len(sink)), **how)
        return Case(made.id, made.operation, about, {**made.inputs, "sink": np.array(sink)}, made.keywords)

    return [
        case("zero", "a logit of 0: 1 more in the denominator", 3, 3, sink=[0.0]),
        case("own-per-head", "another logit for every head; as many heads as queries and keys", 3, 3,
             sink=[1.5, -2.0, 0.25]),
        case("strong", "a logit above all scores: little is attended", 3, 4, sink=[6.0, 8.0]),
        case("weak", "a logit far below: as `attention`", 3, 4, sink=[-20.0, -30.0]),
        case("largest", "a logit of 200: exp overflows float32 unless the shift is by it", 2, 3, sink=[200.0, 1.0]),
        case("loud", "scores of hundreds: exp of the shifted logit is 0", 3, 3, sink=[1.0], given={"q": [LOUD]},
             scale=4.0),
        case("width-sixteen", "d_k = 16: the logit is not divided by √d_k", 2, 3, sink=[2.0, 3.0], D=16),
        case("batch", "sentences of two heads: the gradient of a logit sums over sentences and queries", 2, 3,
             sink=[0.5, -0.5], batch=(3,)),
        case("batch-as-heads", "as many sentences as heads", 2, 3, sink=[2.0, -1.0], batch=(2,)),
        case("causal", "causal: the mask does not hide the sink", 4, 4, sink=[1.0, -1.0], causal=True),
        case("cache", "causal with T < S", 2, 5, sink=[0.5], causal=True),
        case("forbidden-row", "a query with no key: zeros, the sink has it all", 3, 3, sink=[1.0, 2.0],
             allowed=[[True, False, True], [False] * 3, [True] * 3]),
    ]  # fmt: skip


def log_sum_exp() -> list[Case]:
    def case(slug: str, about: str, x: Any) -> Case:
        return Case(f"LSE/rows-{slug}", "log_sum_exp", about, {"x": np.asarray(x, dtype=np.float64)}, {})

    low = float("-inf")
    return [
        case("rows", "three rows", Draw("LSE/rows-rows").normal(3, 5)),
        case("vector", "no leading axis: a number", Draw("LSE/rows-vector").normal(4)),
        case("one", "one number: itself", [[3.5], [-2.0]]),
        case("large", "numbers of 1000: exp overflows without the shift", [[1000.0, 1000.0, 996.0]]),
        case("small", "numbers of -1000: exp gives 0 without the shift", [[-1000.0, -1008.0, -1000.0]]),
        case("equal", "n equal numbers: x + log n", [[0.25] * 8]),
        case("one-forbidden", "-∞ counts for nothing", [[1.0, low, 2.0]]),
        case("all-forbidden", "a row of only -∞ gives -∞ and no gradient", [[low, low, low], [1.0, 2.0, 3.0]]),
        case("batch", "two leading axes", Draw("LSE/rows-batch").normal(2, 3, 4, scale=3.0)),
        case("below-zero", "the result is near 0, or below it", [[-1.0, -0.75, -2.5], [-3.0, -4.0, -3.5]]),
    ]


def attention_with_lse() -> list[Case]:
    def case(slug: str, about: str, *sizes: int, **how: Any) -> Case:
        return _masked("LSE", "attention_with_lse", f"attention-{slug}", about, (sizes[0], sizes[1]), **how)

    return [
        case("square", "both outputs have a gradient to queries and keys", 3, 3),
        case("more-keys", "T < S and d_v != d_k", 2, 5),
        case("width-sixteen", "d_k = 16: the scores are those with the scale", 2, 3, D=16),
        case("one-key", "one key: l is its score, with a gradient where y has none", 3, 1),
        case("large-scores", "scores of hundreds", 3, 3, given={"q": LOUD}, scale=4.0),
        case("causal", "causal: l is over the keys that a query sees", 4, 4, causal=True),
        case("cache", "causal with T < S", 2, 5, causal=True),
        case("more-queries", "causal with T > S: the first queries see nothing: zeros and -∞", 4, 2, causal=True),
        case("mask", "a mask (B, 1, S)", 3, 4, batch=(2,),
             allowed=[[[True, True, True, False]], [[True, False, False, False]]]),
        case("forbidden-row", "a query with no key: y = 0, l = -∞, no gradient", 3, 3,
             allowed=[[True, False, True], [False] * 3, [True] * 3]),
        case("heads", "two leading axes", 2, 3, batch=(2, 2)),
        case("beyond-a-tile", "70 keys", 2, 70, D=1, E=1),
    ]  # fmt: skip


def merge_attention() -> list[Case]:
    low = float("-inf")

    def case(slug: str, about: str, *rows: int, E: int = 2, l1: Any = None, l2: Any = None, y1: Any = None,
             y2: Any = None) -> Case:  # fmt: skip
        id = f"LSE/merge-{slug}"
        draw = Draw(id)
        inputs = {
            "y1": draw.normal(*rows, E) if y1 is None else np.array(y1),
            "l1": draw.normal(*rows) if l1 is None else np.array(l1),
            "y2": draw.normal(*rows, E) if y2 is None else np.array(y2),
            "l2": draw.normal(*rows) if l2 is None else np.array(l2),
        }
        return Case(id, "merge_attention", about, inputs, {})

    zeros = [[0.0, 0.0]]
    return [
        case("usual", "the weights are e^l, and l is the log of their sum", 3),
        case("equal", "the same l: the mean, and l + log 2", 2, l1=[1.5, -0.5], l2=[1.5, -0.5]),
        case("large", "l of 1000: exp overflows without the shift", 2, l1=[1000.0, 996.0], l2=[992.0, 1000.0]),
        case("small", "l of -1000: exp is 0 without the shift", 2, l1=[-1000.0, -996.0], l2=[-992.0, -1000.0]),
        case("one-sided", "the second part hardly counts", 2, l1=[20.0, 30.0], l2=[0.0, -10.0]),
        case("first-empty", "a first part without a key: the second as it is", 1, y1=zeros, l1=[low], l2=[0.5]),
        case("second-empty", "a second part without a key", 1, y2=zeros, l2=[low], l1=[-2.0]),
        case("both-empty", "no key at all: zeros and -∞, not NaN", 1, y1=zeros, y2=zeros, l1=[low], l2=[low]),
        case("mixed", "an empty row beside a full one", 2, y1=[[0.0, 0.0], [1.0, -2.0]], l1=[low, 0.25]),
        case("heads", "two leading axes", 2, 2, 3),
        case("wide", "d_v = T: the weight belongs to the row", 3, E=3),
        case("vector", "no leading axis", 1, E=4),
    ]


def normed_attention() -> list[Case]:
    def case(slug: str, about: str, *sizes: int, eps: float = 2.0**-20, ones: bool = False, D: int = 4,
             **how: Any) -> Case:  # fmt: skip
        made = _masked("QKN", "normed_attention", slug, about, (sizes[0], sizes[1]), D=D, eps=eps, **how)
        draw = Draw(f"{made.id} gains")
        gains = {name: np.ones(D) if ones else draw.normal(D, offset=1.0) for name in ("gq", "gk")}
        return Case(made.id, made.operation, about, {**made.inputs, **gains}, made.keywords)

    return [
        case("square", "gains of the queries and of the keys", 3, 3),
        case("ones", "gains of 1: the scores are √D times a cosine", 3, 4, ones=True),
        case("uneven-sizes", "a key a thousand times another: its scores are no larger", 2, 3, ones=True,
             given={"k": [[1.0, 2.0, -1.0, 0.5], [1000.0, -500.0, 250.0, 2000.0], [0.0625, 0.5, -0.25, 0.125]]}),
        case("large-eps", "eps of 1/2, beside the mean of the squares, not its root", 3, 3, eps=0.5, scale=0.5),
        case("zero-query", "a query of zeros: equal weights, and a gradient by 1/√eps", 2, 3, eps=0.0625,
             given={"q": [[0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 0.5, 2.0]]}),
        case("heads", "two leading axes: every head by itself, with the gains of all", 3, 3, batch=(2, 2)),
        case("heads-of-one-width", "as many heads as entries", 2, 3, batch=(4,)),
        case("width-one", "D = 1: signs", 3, 3, D=1),
        case("width-sixteen", "D = 16: still divided by √D", 2, 3, D=16),
        case("causal", "causal", 4, 4, causal=True),
        case("cache", "causal with T < S", 2, 5, causal=True),
        case("mask", "a mask, and a query with no key", 2, 3, allowed=[[False] * 3, [True, False, True]]),
    ]  # fmt: skip
