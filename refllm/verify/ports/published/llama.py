"""Llama, Mistral, Qwen and Gemma."""

from refllm.spec.array import Array, Tree, arange, concatenate, like, log, pi, sqrt, stack, tap, where
from refllm.spec.embedding import embedding
from refllm.spec.heads import cut
from refllm.spec.linear import matmul
from refllm.spec.llama import alibi_slopes
from refllm.spec.relative import alibi, t5_bias_causal
from refllm.spec.repeat_heads import repeat_heads
from refllm.spec.rotary import turn
from refllm.spec.rotary_scaling import linear_frequencies, llama3_frequencies, ntk_frequencies, trained_frequencies
from refllm.spec.soft_cap import soft_cap
from refllm.verify.ports.published.parts import attended, by_places, gated_feed_forward, mapped, norm, put_out, visible


def llama_embedding(p: Tree, *, ids: Array, config: Tree) -> Array:
    """x = token[ids], or √C token[ids], as Gemma does."""
    x, _ = embedding(p["token"], ids=ids)
    if config["scaled_embedding"]:
        x = x * sqrt(config["width"])
    return x


def llama_layer(
    x: Array, p: Tree, relative: Array | None, *, window: int, attention_mask: Array | None, config: Tree
) -> Array:
    """h = x + attention(N(x)),   y = h + FFN(N(h));   each sublayer with a norm after it too where p has one."""
    n = tap("norm1", norm(x, p["norm1"], eps=config["eps"]))
    r = bias_by_distance(x, relative, config=config)
    a = grouped_attention(n, p["attention"], r, window=window, attention_mask=attention_mask, config=config)
    a = tap("attention_out", a)
    if config["norms_after"]:
        a = tap("norm1_after", norm(a, p["norm1_after"], eps=config["eps"]))
    h = tap("residual1", x + a)
    m = tap("norm2", norm(h, p["norm2"], eps=config["eps"]))
    f = tap("feed_forward", gated_feed_forward(m, p["feed_forward"], activation=config["activation"]))
    if config["norms_after"]:
        f = tap("norm2_after", norm(f, p["norm2_after"], eps=config["eps"]))
    return h + f


def bias_by_distance(x: Array, relative: Array | None, *, config: Tree) -> Array | None:
    """The bias of every pair of places by their distance, (H, T, T): of one table for all layers, or of a slope for
    each head; published models have none."""
    T = x.shape[-2]
    if config["positions"] == "relative":
        return by_places(t5_bias_causal(relative, queries=T, keys=T, farthest=config["farthest"])[0], T)
    if config["positions"] == "alibi":
        return by_places(alibi(like(alibi_slopes(config["heads"]), x), queries=T, keys=T)[0], T)
    return None


def grouped_attention(
    x: Array, p: Tree, r: Array | None, *, window: int, attention_mask: Array | None, config: Tree
) -> Array:
    """Heads of queries attend shared heads of keys and values; queries and keys are turned by their positions."""
    q = tap("q_mapped", cut(mapped(x, p, "q"), config["heads"]))
    k = tap("k_mapped", cut(mapped(x, p, "k"), config["kv_heads"]))
    v = tap("v", cut(mapped(x, p, "v"), config["kv_heads"]))
    if config["query_key_norm"]:
        q = tap("q_normed", norm(q, p["query_norm"], eps=config["eps"]))
        k = tap("k_normed", norm(k, p["key_norm"], eps=config["eps"]))
    q = tap("q", turned(q, config=config))
    k = tap("k", turned(k, config=config))
    groups = config["heads"] // config["kv_heads"]
    k_repeated, _ = repeat_heads(k, groups=groups)
    v_repeated, _ = repeat_heads(v, groups=groups)
    seen = visible(x, keys=x.shape[-2], causal=True, window=window, attention_mask=attention_mask)
    a = attended(
        q, k_repeated, v_repeated, r, seen=seen, width=config["score_width"] or q.shape[-1], cap=config["score_cap"]
    )
    return put_out(a, p)


def turned(x: Array, *, config: Tree) -> Array:
    """Every pair of entries turned by the angle of its place."""
    positions = arange(x.shape[-2])
    angle = positions[:, None] * frequencies(config, length=x.shape[-2])
    if config["scaling_scale"] != 1:
        x = x * config["scaling_scale"]
    if config["positions"] in ("none", "alibi", "relative"):
        return x
    if config["positions"] == "rotary_interleaved":
        return turned_neighbours(x, angle)
    return turned_halves(x, angle)


def turned_halves(x: Array, angle: Array) -> Array:
    """Pairs are x_i and x_{i + D/2}."""
    half = x.shape[-1] // 2
    return concatenate(turn(x[..., :half], x[..., half:], angle), axis=-1)


def turned_neighbours(x: Array, angle: Array) -> Array:
    """Pairs are x_{2i} and x_{2i + 1}."""
    return stack(turn(x[..., 0::2], x[..., 1::2], angle), axis=-1).reshape(x.shape)


def frequencies(config: Tree, *, length: int) -> Array:
    """The angle of each pair at position 1, in a text of that length."""
    width, base = config["head_width"], config["base"]
    if config["scaling"] == "dynamic":
        longer = max(length / config["scaling_original"], 1)
        return ntk_frequencies(width=width, base=base, factor=1 + config["scaling_factor"] * (longer - 1))
    if config["scaling"] == "yarn":
        return yarn_frequencies(config)
    if config["scaling"] == "linear":
        return linear_frequencies(width=width, base=base, factor=config["scaling_factor"])
    if config["scaling"] == "llama3":
        return llama3_frequencies(
            width=width, base=base, factor=config["scaling_factor"], original=config["scaling_original"],
            low_factor=config["scaling_low"], high_factor=config["scaling_high"],
        )  # fmt: skip
    return trained_frequencies(width, base)


def yarn_frequencies(config: Tree) -> Array:
    """Pairs that turn often over the trained length keep their frequency, those that turn seldom have it divided by the
    factor, and between them it changes along a line. Rounded, its ends are whole pairs, as in refllm/spec."""
    width, base, original = config["head_width"], config["base"], config["scaling_original"]
    low = width * log(original / (config["scaling_high"] * 2 * pi())) / (2 * log(base))
    high = width * log(original / (config["scaling_low"] * 2 * pi())) / (2 * log(base))
    if config["scaling_rounded"]:
        low, high = low // 1, -(-high // 1)
    low, high = max(low, 0), min(high, width - 1)
    line = (arange(width // 2) - low) / (high - low or 0.001)
    r = where(line < 0, 0, where(line > 1, 1, line))
    f = trained_frequencies(width, base)
    return r * f / config["scaling_factor"] + (1 - r) * f


def llama_norm(x: Array, p: Tree, *, config: Tree) -> Array:
    """The last norm."""
    return norm(x, p["norm"], eps=config["eps"])


def llama_logits(x: Array, p: Tree, *, config: Tree) -> Array:
    """x W,   W = tokenᵀ if tied; held within a cap where there is one."""
    y, _ = matmul(x, p["token"].T if config["tied"] else p["head"])
    if config["logit_cap"]:
        y, _ = soft_cap(y, cap=config["logit_cap"])
    return y
