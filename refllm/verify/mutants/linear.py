"""Mistakes of the affine maps, of the way into heads and out of them, and of the embedding."""

from __future__ import annotations

from refllm.spec.embedding import embedding
from refllm.spec.linear import heads, linear, matmul
from refllm.spec.self_attention import self_attention
from refllm.verify.mutants.bank import Edited, Edits, edit

MATMUL, MATMUL_BACK = "return x @ W, matmul_back", "return dy @ W.T, flat(x).T @ flat(dy)"
LINEAR, LINEAR_BACK = "return x @ W + b, linear_back", "return dy @ W.T, flat(x).T @ flat(dy), rows(dy)"
LAST = "last = slice(-1, None) if x.ndim > 1 else slice(None)"
SQUARE = "len(W) == len(W.T)"
CUT = "cut = y.reshape(*y.shape[:-1], parts, heads, y.shape[-1] // (parts * heads))"
PARTS = "return tuple(cut[..., n, :, :].swapaxes(-2, -3) for n in range(parts)), heads_back"
OUT = 'y, out_back = linear(joined(a), p["Wo"], p["bo"])'
PROJECTED = '(q, k, v), projected_back = projected(x, p["Wqkv"], p["bqkv"], heads=heads, parts=3)'


def order(first: int, second: int, third: int) -> Edits:
    """The three parts taken in another order; where there are not three they stay."""
    chosen = f"(({first}, {second}, {third}) if parts == 3 else range(parts))"
    return edit(heads, PARTS, PARTS.replace("range(parts)", chosen))


G = "https://github.com/"
# fmt: off
MUTANTS = [
    Edited("LMHEAD/transposed", "matmul with the weights transposed, x Wᵀ (where they are square)",
           edit(matmul, MATMUL, f"return x @ (W.T if {SQUARE} else W), matmul_back")),
    Edited("LMHEAD/back-input-untransposed", "matmul with dx = dy W instead of dy Wᵀ (where W is square)",
           edit(matmul, MATMUL_BACK, f"return dy @ (W if {SQUARE} else W.T), flat(x).T @ flat(dy)")),
    Edited("LMHEAD/back-weight-transposed", "matmul with dW transposed (where it is square)",
           edit(matmul, MATMUL_BACK, f"return dy @ W.T, flat(dy).T @ flat(x) if {SQUARE} else flat(x).T @ flat(dy)")),
    Edited("LMHEAD/back-weight-mean", "matmul with dW averaged over the rows instead of summed",
           edit(matmul, MATMUL_BACK, "return dy @ W.T, flat(x).T @ flat(dy) / len(flat(x))")),
    Edited("LMHEAD/back-weight-last", "matmul whose dW is overwritten, not added to: the last row alone counts",
           edit(matmul, MATMUL_BACK, f"{LAST}\nreturn dy @ W.T, flat(x[last]).T @ flat(dy[last])")),
    Edited("FFN/linear-transposed", "linear with the weights transposed, x Wᵀ + b (where they are square)",
           edit(linear, LINEAR, f"return x @ (W.T if {SQUARE} else W) + b, linear_back")),
    Edited("FFN/linear-no-bias", "linear without the bias", edit(linear, LINEAR, "return x @ W, linear_back")),
    Edited("FFN/linear-bias-twice", "linear with the bias added twice",
           edit(linear, LINEAR, "return x @ W + b + b, linear_back")),
    Edited("FFN/linear-back-bias-mean", "linear with db averaged over the rows instead of summed",
           edit(linear, LINEAR_BACK, "return dy @ W.T, flat(x).T @ flat(dy), rows(dy) / len(flat(x))")),
    Edited("FFN/linear-back-mean", "linear with dW and db averaged over the rows instead of summed",
           edit(linear, LINEAR_BACK,
                "N = len(flat(x))\nreturn dy @ W.T, flat(x).T @ flat(dy) / N, rows(dy) / N")),
    Edited("FFN/linear-back-last", "linear whose dW and db are overwritten along the first axis, not added to",
           edit(linear, LINEAR_BACK, f"{LAST}\nreturn dy @ W.T, flat(x[last]).T @ flat(dy[last]), rows(dy[last])")),
    Edited("FFN/linear-back-no-bias", "linear with no gradient for the bias",
           edit(linear, LINEAR_BACK, "return dy @ W.T, flat(x).T @ flat(dy), 0 * b")),
    Edited("FFN/linear-back-input-untransposed", "linear with dx = dy W instead of dy Wᵀ (where W is square)",
           edit(linear, LINEAR_BACK, f"return dy @ (W if {SQUARE} else W.T), flat(x).T @ flat(dy), rows(dy)")),
    Edited("MHA/split-without-transpose", "heads cut by a reshape to (H, T, D) without a transpose",
           edit(heads, PARTS, PARTS.replace("swapaxes(-2, -3)", "reshape(*y.shape[:-2], heads, -1, cut.shape[-1])")),
           G + "reczoo/FuxiCTR/issues/30"),
    Edited("MHA/split-entry-major", "heads cut with the entries before the heads, column d H + h",
           edit(heads, CUT, "cut = swap(y.reshape(*y.shape[:-1], parts, y.shape[-1] // (parts * heads), heads))")),
    Edited("MHA/split-head-major", "heads cut with the heads before the parts, columns q k v of head 0 first",
           edit(heads, CUT, "cut = y.reshape(*y.shape[:-1], heads, parts, y.shape[-1] // (parts * heads))"
                ".swapaxes(-2, -3)")),
    Edited("MHA/order-kqv", "heads with query and key taken in the order k, q, v", order(1, 0, 2)),
    Edited("MHA/order-qvk", "heads with key and value taken in the order q, v, k", order(0, 2, 1)),
    Edited("MHA/order-vkq", "heads with query and value taken in the order v, k, q", order(2, 1, 0)),
    Edited("MHA/no-projection-bias", "heads without the bias of the projection",
           edit(heads, "y, linear_back = linear(x, W, b)", "y = x @ W")),
    Edited("MHA/back-split-without-transpose", "heads whose gradient is put together without a transpose",
           edit(heads, "dcut = stack([dpart.swapaxes(-2, -3) for dpart in dparts], axis=-3)",
                "dcut = stack([dpart.reshape(cut[..., 0, :, :].shape) for dpart in dparts], axis=-3)")),
    Edited("MHA/back-projection-bias-mean", "heads with the gradient of the bias averaged instead of summed",
           edit(heads, "return linear_back(dcut.reshape(y.shape))",
                "dx, dW, db = linear_back(dcut.reshape(y.shape))\nreturn dx, dW, db / len(flat(y))")),
    Edited("MHA/merge-without-transpose", "self-attention whose heads are joined without a transpose",
           edit(self_attention, OUT, 'y, out_back = linear(a.reshape(x.shape), p["Wo"], p["bo"])'),
           G + "jsbaan/transformer-from-scratch/pull/6"),
    Edited("MHA/merge-entry-major", "self-attention whose heads are joined entry by entry",
           edit(self_attention, OUT,
                'y, out_back = linear(swap(a.swapaxes(-2, -3)).reshape(x.shape), p["Wo"], p["bo"])')),
    Edited("MHA/no-output-projection", "self-attention without the output projection",
           edit(self_attention, OUT, "y = joined(a)")),
    Edited("MHA/no-output-bias", "self-attention without the bias of the output projection",
           edit(self_attention, OUT, 'y, out_back = matmul(joined(a), p["Wo"])')),
    Edited("MHA/output-transposed", "self-attention with the output projection transposed",
           edit(self_attention, OUT, 'y, out_back = linear(joined(a), p["Wo"].T, p["bo"])')),
    Edited("MHA/one-head", "self-attention with one head of the full width",
           edit(self_attention, PROJECTED, PROJECTED.replace("heads=heads", "heads=1"))),
    Edited("EMB/next-row", "embedding of the row after the one asked for: ids counted from -1",
           edit(embedding, "return E[ids], embedding_back", "return E[(ids + 1) % len(E)], embedding_back")),
    Edited("EMB/previous-row", "embedding of the row before the one asked for: ids counted from 1",
           edit(embedding, "return E[ids], embedding_back", "return E[(ids - 1) % len(E)], embedding_back")),
    Edited("EMB/times-root-width", "embedding multiplied by √C, as the Transformer of 2017 does",
           edit(embedding, "return E[ids], embedding_back", "return E[ids] * sqrt(E.shape[1]), embedding_back")),
    Edited("EMB/times-index", "embedding of a word as its index times a row of the table (E7)",
           edit(embedding, "return E[ids], embedding_back", "return E[0] * like(ids[..., None], E), embedding_back")),
    Edited("EMB/back-assigned", "embedding whose gradient is assigned, not added: repeated ids count once",
           edit(embedding, "return scatter_add(ids, dy, len(E))", "return scatter_last(ids, dy, len(E))"),
           G + "PaddlePaddle/Paddle/pull/17705"),
    Edited("EMB/back-averaged", "embedding whose gradient is averaged over the places of a word",
           edit(embedding, "return scatter_add(ids, dy, len(E))", "return scatter_mean(ids, dy, len(E))")),
    Edited("EMB/back-first-row-frozen", "embedding with no gradient for row 0, taken for padding",
           edit(embedding, "return scatter_add(ids, dy, len(E))",
                "dE = scatter_add(ids, dy, len(E))\ndE[0] = 0\nreturn dE")),
]
