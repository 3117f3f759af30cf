"""Llama: a decoder-only Transformer with RMS norm, gated feed-forward layers, grouped queries, and no biases."""

from refllm.spec.array import Array, Pullback, Tree, arange, concatenate, like, power, ratio, tap
from refllm.spec.embedding import embedding
from refllm.spec.layers import normalised, through, with_head
from refllm.spec.linear import matmul
from refllm.spec.loss import next_token_loss
from refllm.spec.relative import alibi, t5_bias_causal
from refllm.spec.transformer_layer import llama_layer

FARTHEST = 128  # of the positions "relative": that of T5


def llama(p: Tree, *, ids: Array, config: Tree) -> tuple[Array, Pullback]:
    """LLAMA: x = token[ids];   h = layer_L( ... layer_1(x));   logits = RMS(h) W,   W = tokenᵀ if tied

    Positions are a rotation of queries and keys ("rotary", "rotary_interleaved"), or a bias by distance, of fixed
    slopes ("alibi") or of one learned table for all layers ("relative"), or nothing ("none").
    Source:  Touvron et al. 2023 (arXiv:2302.13971) sec. 2.2.
    Shapes:  ids (..., T) in [0, V) -> logits (..., T, V)
    """
    how, T, tied = config["positions"], ids.shape[-1], config["tied"]
    rotation = how if how.startswith("rotary") else None
    r, bias_back = bias_by_distance(p, how, places=T, heads=config["heads"])

    def layer(x: Array, p: Tree) -> tuple[Array, Pullback]:
        return llama_layer(
            x, p, r, heads=config["heads"], kv_heads=config["kv_heads"], rotation=rotation,
            positions=arange(T), base=config["base"], attention_mask=None, eps=config["eps"],
        )  # fmt: skip

    x, embedding_back = embedding(p["token"], ids=ids)
    h, layers_back = through(tap("embedding", x), p["layers"], layer)
    n, norm_back = normalised(h, p["norm"], eps=config["eps"])
    logits, head_back = matmul(tap("norm", n), p["token"].T if tied else p["head"])

    def llama_back(dlogits: Array) -> Tree:
        dn, dW = head_back(dlogits)
        dh, dnorm = norm_back(dn)
        dx, dlayers, *dr = layers_back(dh)
        dp = {"token": embedding_back(dx), **bias_back(*dr), "layers": dlayers, "norm": dnorm}
        return with_head(dp, dW, tied=tied)

    return tap("logits", logits), llama_back


def bias_by_distance(p: Tree, how: str, *, places: int, heads: int) -> tuple[Array | None, Pullback]:
    """LONG, T5-REL: the bias r of every distance, or None; the pullback gives the gradient of the table, if p has one

    Source:  as `alibi` and `t5_bias_causal`.
    Shapes:  relative (K, H) -> r (H, places+places-1)
    """
    if how == "relative":
        r, table_back = t5_bias_causal(p["relative"], queries=places, keys=places, farthest=FARTHEST)

        def relative_back(dr: Array) -> Tree:
            return {"relative": table_back(dr)}

        return r, relative_back

    def no_table_back(*dr: Array) -> Tree:
        return {}

    if how == "alibi":
        slopes = like(alibi_slopes(heads), p["token"])
        return alibi(slopes, queries=places, keys=places)[0], no_table_back
    return None, no_table_back


def alibi_slopes(heads: int) -> Array:
    """LONG, ALiBi: 2^(-8 h / n) for h = 1 ... n, a power of two; for another n the slopes of the power of two
    below it, then the first, third, fifth ... slope of the power above

    Source:  Press et al. 2022 (arXiv:2108.12409) sec. 3, and the authors' code for other numbers of heads.

    >>> alibi_slopes(3)
    array([0.0625    , 0.00390625, 0.25      ])
    """
    below = 2 ** (heads.bit_length() - 1)

    def slopes(n: int) -> Array:
        return power(2, -ratio(8 * arange(1, n + 1), n))

    return concatenate([slopes(below), slopes(2 * below)[::2]], axis=0)[:heads]


def llama_loss(p: Tree, *, ids: Array, targets: Array, ignore: int | None, config: Tree) -> tuple[Array, Pullback]:
    """NLL: as `gpt_loss`

    Source:  Touvron et al. 2023 (arXiv:2302.13971) sec. 2.
    Shapes:  ids (..., T) in [0, V); targets (..., T) in [0, V) -> y ()
    """
    return next_token_loss(llama, p, ids=ids, targets=targets, ignore=ignore, config=config)
