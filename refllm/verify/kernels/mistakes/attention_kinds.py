"""Mistakes of the kinds of attention: of a cap, a bias, a sink, a log-sum-exp that is given back."""

from __future__ import annotations

from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.flash import attention_with_lse, backward, forward, scores
from refllm.verify.kernels.mistakes.attention import DK, DQ, Z
from refllm.verify.mutants.bank import Edits, edit

BENT = "s = kind.bent(s, row, key)"
UNBENT = "ds = kind.unbent(ds, q[..., rows, :], k[..., keys, :])"
GATHERED = "more = kind.gathered(more, ds, rows, keys)"
MORE = "more = kind.gradient(L, delta)"
DELTA = "delta = kind.delta(delta)"
LSE = "l = numpy.where(L == INFINITY, -INFINITY, L)"
SINK = "kind.begun(top, shift, Z)[0]"


def _bent(row: str = "row", key: str = "key") -> Edits:
    return edit(scores, BENT, f"s = kind.bent(s, {row}, {key})")


# fmt: off
MISTAKES = [
    Mistake("capped_attention/gradient-without-cap", "a gradient of capped scores as if there were no cap",
            edit(backward, UNBENT, "")),
    Mistake("capped_attention/cap-twice", "capped scores that are capped once more",
            edit(scores, BENT, f"{BENT}\n{BENT}")),
    Mistake("capped_attention/key-gradient-without-cap", "a key gradient of capped scores as if there were no cap",
            edit(backward, UNBENT, "", DK, f"{DK}\n{UNBENT}")),
    Mistake("capped_attention/query-gradient-without-cap", "a query gradient of capped scores as if there were no cap",
            edit(backward, DQ, DQ.replace("ds @", "P * (dP - delta[..., rows, :]) @"))),
    Mistake("capped_attention/cap-of-gradient-twice", "a gradient of capped scores with the cap's slope twice",
            edit(backward, UNBENT, f"{UNBENT}\n{UNBENT}")),
    Mistake("capped_attention/cap-after-mask", "scores that are capped behind the masks, where -∞ becomes -cap",
            edit(scores, BENT, "", "return s.astype(q.dtype)", f"{BENT}\nreturn s.astype(q.dtype)")),
    Mistake("relative_attention/bias-of-tile", "a bias by the distance of the places in their tiles",
            _bent("row - rows.start", "key - keys.start")),
    Mistake("relative_attention/bias-of-query-in-tile", "a bias that counts queries from the begin of their tile",
            _bent("row - rows.start")),
    Mistake("relative_attention/bias-turned", "a bias by the distance from key to query, with the sign turned",
            edit(scores, BENT, "s = kind.bent(s, numpy.minimum(key, T - 1), numpy.minimum(row, S - 1))")),
    Mistake("relative_attention/bias-gradient-of-last-tile", "a bias gradient of the last tile alone",
            edit(backward, GATHERED, "more = kind.gathered(kind.gradient(L, delta), ds, rows, keys)")),
    Mistake("relative_attention/bias-gradient-of-weights", "a bias gradient of P dP, without the sum over dy y",
            edit(backward, GATHERED, "more = kind.gathered(more, P * dP, rows, keys)")),
    Mistake("relative_attention/bias-gradient-by-tile",
            "a bias gradient by the distance of tiles that are counted from the first",
            edit(backward, GATHERED, "more = kind.gathered(more, ds, first(rows), first(keys))")),
    Mistake("sink_attention/sink-in-every-tile", "a sink that is added to the sum in every tile of keys",
            edit(forward, Z, f"{Z} + (keys.start > 0) * numpy.exp({SINK} - shift)")),
    Mistake("sink_attention/sink-not-rescaled", "a sink in the sum that is not rescaled when the maximum rises",
            edit(forward, Z, f"{Z} + (keys.start == 0) * (numpy.exp({SINK} - top) - numpy.exp({SINK} - shift))")),
    Mistake("sink_attention/sink-gradient-turned", "a sink gradient of the other sign",
            edit(backward, MORE, f"{MORE}\nmore = None if more is None else -more")),
    Mistake("sink_attention/sink-gradient-of-last-tile", "a sink gradient of the last tile of queries alone",
            edit(backward, MORE, "begin = (T - 1) // ROWS * ROWS\n"
                 "more = kind.gradient(L[..., begin:], delta[..., begin:, :])")),
    Mistake("sink_attention/sink-gradient-without-last-tile", "a sink gradient without the queries after whole tiles",
            edit(backward, MORE, "end = T // ROWS * ROWS\nmore = kind.gradient(L[..., :end], delta[..., :end, :])")),
    Mistake("attention_with_lse/gradient-added", "a gradient of the log-sum-exp with the wrong sign",
            edit(backward, DELTA, "delta = 2 * delta - kind.delta(delta)")),
    Mistake("attention_with_lse/gradient-unread", "a log-sum-exp to which no gradient goes back",
            edit(backward, DELTA, "")),
    Mistake("attention_with_lse/to-base-2", "a log-sum-exp to the base 2",
            edit(attention_with_lse, LSE, LSE.replace(", L)", ", L / math.log(2))"))),
    Mistake("attention_with_lse/empty-rows-turned", "a log-sum-exp of +∞ where no key is left",
            edit(attention_with_lse, LSE, "l = L"), "https://github.com/Dao-AILab/flash-attention/pull/978"),
    Mistake("attention_with_lse/empty-rows-zero", "a log-sum-exp of 0 where no key is left",
            edit(attention_with_lse, LSE, "l = numpy.where(L == INFINITY, 0, L)")),
    Mistake("attention_with_lse/empty-rows-finite", "a log-sum-exp that is a large number below 0 where no key is left",
            edit(attention_with_lse, LSE, "l = numpy.where(L == INFINITY, -1e30, L)")),
    Mistake("attention_with_lse/empty-rows-nan", "a log-sum-exp of NaN where no key is left",
            edit(attention_with_lse, LSE, "l = numpy.where(L == INFINITY, numpy.nan, L)")),
]
# fmt: on
