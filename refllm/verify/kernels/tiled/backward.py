"""Score gradients of attention in tiles: weights, sums over dy y and products that are recomputed otherwise."""

from __future__ import annotations

from collections.abc import Iterator

from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.flash import backward, forward, scores
from refllm.verify.kernels.mistakes.attention import DELTA, DS, P_BACK, PRODUCT
from refllm.verify.mutants.bank import Edits, edit

LSE = "L[..., rows] = numpy.where(Z == 0, INFINITY, shift + numpy.log(numpy.where(Z == 0, 1, Z)))[..., 0]"
DP = "dP = dy[..., rows, :] @ swap(v[..., keys, :])"
SUM = "numpy.where(L < INFINITY, numpy.exp(numpy.minimum(L, 700)), 0)"  # of the exponentials, without a shift


def mistakes() -> Iterator[Mistake]:
    for name, words, edits in (*_lse(), *_deltas(), *_score_gradients()):
        yield Mistake(f"attention/{name}", words, edits)


def of_widths() -> Iterator[Mistake]:
    """Scores, or products with values, of the first columns of a head, in the gradient alone."""
    for n in (128, 64, 256, 32):
        cut = PRODUCT.replace("rows, :]", f"rows, :{n}]").replace("keys, :]", f"keys, :{n}]")
        words = f"attention whose scores come from the first {n} columns of a head, as the gradient recomputes them"
        yield Mistake("attention/width-cut-in-gradient", words, edit(scores, PRODUCT, cut), within="backward")
        cut = DP.replace("rows, :]", f"rows, :{n}]").replace("keys, :]", f"keys, :{n}]")
        words = f"attention with a score gradient whose dy vᵀ takes the first {n} columns of a head"
        yield Mistake("attention/score-gradient-width-cut", words, edit(backward, DP, cut))


def _lse() -> Iterator[tuple[str, str, Edits]]:
    log = "numpy.log(numpy.where(Z == 0, 1, Z))"
    for name, words, value in (
        ("without-maximum", "without the maximum", log),
        ("sum", "that is the sum itself, without its logarithm", "numpy.where(Z == 0, 1, Z)"),
        ("to-base-2", "to the base 2", "(shift + numpy.log(numpy.where(Z == 0, 1, Z))) * 1.4426950408889634"),
        (
            "mixed-base",
            "whose logarithm is to the base 2 and whose maximum is not",
            "shift + numpy.log2(numpy.where(Z == 0, 1, Z))",
        ),
        ("maximum-times", "that is the maximum times the logarithm", f"shift * {log}"),
        ("maximum-minus", "that is the maximum minus the logarithm", f"shift - {log}"),
        (
            "old-maximum",
            "of the last tile's scores alone",
            "numpy.where(P.sum(axis=-1, keepdims=True) == 0, shift, shift + numpy.log(P.sum(axis=-1, keepdims=True)))",
        ),
    ):
        yield (
            f"log-sum-exp-{name}",
            f"a gradient with a log-sum-exp {words}",
            edit(forward, LSE, f"L[..., rows] = numpy.where(Z == 0, INFINITY, {value})[..., 0]"),
        )
    for name, words, new in (
        (
            "unread",
            "whose weights are not divided by their sum",
            "P = numpy.exp(scores(q, k, rows, keys, causal, allowed, window, kind))",
        ),
        (
            "of-first-tile",
            "whose tiles of queries all read the log-sum-exp of the first",
            P_BACK.replace("L[..., rows, None]", "L[..., : rows.stop - rows.start, None]"),
        ),
        (
            "of-tile-before",
            "whose tiles of queries read the log-sum-exp of the tile before",
            P_BACK.replace(
                "L[..., rows, None]", "L[..., max(rows.start - ROWS, 0) :][..., : rows.stop - rows.start, None]"
            ),
        ),
        (
            "along-keys",
            "whose log-sum-exp is read along the keys",
            P_BACK.replace(
                "L[..., rows, None]",
                "numpy.resize(L[..., keys], (*L.shape[:-1], keys.stop - keys.start))[..., None, :]",
            ),
        ),
        (
            "of-first-head",
            "whose heads all read the log-sum-exp of the first",
            P_BACK.replace("L[..., rows, None]", "numpy.broadcast_to(L.reshape(-1, T)[0], L.shape)[..., rows, None]"),
        ),
        (
            "weights-of-tile",
            "whose weights are those of each tile alone",
            "s = scores(q, k, rows, keys, causal, allowed, window, kind)\n"
            "P = numpy.exp(s - numpy.maximum(s.max(axis=-1, keepdims=True), -1e300))\n"
            "P = P / numpy.maximum(P.sum(axis=-1, keepdims=True), 1e-300)",
        ),
        (
            "by-powers-of-2",
            "whose weights are powers of 2 where they should be of e",
            P_BACK.replace("numpy.exp(", "numpy.exp2("),
        ),
        ("at-most-1", "whose weights are cut off at 1/2", f"{P_BACK}\nP = numpy.minimum(P, 0.5)"),
    ):
        yield f"gradient-log-sum-exp-{name}", f"a gradient {words}", edit(backward, P_BACK, new)


def _deltas() -> Iterator[tuple[str, str, Edits]]:
    for name, words, value in (
        ("of-rounded-output", "of an output in bfloat16", '(dy * narrow(y, "bfloat16")).sum(axis=-1, keepdims=True)'),
        ("of-half-output", "of an output in float16", '(dy * narrow(y, "float16")).sum(axis=-1, keepdims=True)'),
        ("as-mean", "that is a mean and no sum", "(dy * y).mean(axis=-1, keepdims=True)"),
        ("of-squares", "of dy² in place of dy y", "(dy * dy).sum(axis=-1, keepdims=True)"),
        ("of-outputs", "of y² in place of dy y", "(y * y).sum(axis=-1, keepdims=True)"),
        ("without-output", "of dy alone", "dy.sum(axis=-1, keepdims=True)"),
        ("without-cotangent", "of y alone", "y.sum(axis=-1, keepdims=True)"),
        ("scaled", "that is scaled by 1/√D", "(dy * y).sum(axis=-1, keepdims=True) * scale"),
        (
            "unnormalised",
            "of an output that is not divided by its sum",
            f"(dy * y * {SUM}[..., None]).sum(axis=-1, keepdims=True)",
        ),
        (
            "over-queries",
            "over the queries of each column",
            "(dy * y).sum(axis=-2, keepdims=True)[..., :1] + 0 * dy[..., :1]",
        ),
        (
            "of-first-head",
            "of the first head for all",
            "numpy.broadcast_to((dy * y).sum(axis=-1, keepdims=True).reshape(-1, T, 1)[0], (*q.shape[:-1], 1))",
        ),
        (
            "not-of-last-columns",
            "that leaves out the columns after the last whole tile of 32",
            "(dy * y)[..., : y.shape[-1] // 32 * 32].sum(axis=-1, keepdims=True)",
        ),
        ("of-64-columns", "of the first 64 columns", "(dy * y)[..., :64].sum(axis=-1, keepdims=True)"),
    ):
        yield f"delta-{name}", f"a score gradient with a sum {words}", edit(backward, DELTA, f"delta = {value}")


def _score_gradients() -> Iterator[tuple[str, str, Edits]]:
    row = "delta[..., rows, :]"
    for name, words, value in (
        ("delta-added", "to which the sum over dy y is added", f"P * (dP + {row})"),
        ("delta-outside", "P dP - Σ dy y, without parentheses", f"P * dP - {row}"),
        ("delta-with-weight", "P (dP - P Σ dy y)", f"P * (dP - P * {row})"),
        ("unweighted", "without the weights", f"(dP - {row})"),
        ("weights-twice", "with the weights squared", f"P * P * (dP - {row})"),
        ("own-entry-alone", "dP P (1 - P), of the diagonal of the softmax alone", "dP * P * (1 - P)"),
        (
            "delta-of-tile",
            "whose sum is that of each tile of keys alone",
            "P * (dP - (P * dP).sum(axis=-1, keepdims=True))",
        ),
        (
            "delta-of-first-tile",
            "whose sum over dy y is that of the first tile of queries",
            "P * (dP - delta[..., : rows.stop - rows.start, :])",
        ),
        (
            "delta-of-tile-before",
            "whose sum over dy y is that of the tile of queries before",
            "P * (dP - delta[..., max(rows.start - ROWS, 0) :, :][..., : rows.stop - rows.start, :])",
        ),
        (
            "delta-by-keys",
            "whose sum over dy y is read along the keys",
            "P * (dP - numpy.resize(swap(delta)[..., keys], (*delta.shape[:-2], 1, keys.stop - keys.start)))",
        ),
        ("turned", "of the other sign", f"P * ({row} - dP)"),
        ("scaled", "that is scaled before the products scale it again", f"P * (dP - {row}) * scale"),
        ("dp-scaled", "whose dP is scaled by 1/√D", f"P * (dP * scale - {row})"),
    ):
        yield f"score-gradient-{name}", f"a score gradient {words}", edit(backward, DS, f"ds = {value}")
    for name, words, new in (
        (
            "values-of-first-tile",
            "a score gradient whose tiles all read the values of the first",
            DP.replace("v[..., keys, :]", "v[..., : keys.stop - keys.start, :]"),
        ),
        ("values-are-keys", "a score gradient with keys where values should stand", DP.replace("v[", "k[")),
        (
            "first-dy",
            "a score gradient whose tiles of queries all read dy of the first",
            DP.replace("dy[..., rows, :]", "dy[..., : rows.stop - rows.start, :]"),
        ),
    ):
        yield f"score-gradient-{name}", words, edit(backward, DP, new)
