"""BERT and its heads; the layers are those of `transformer_layer`."""

from refllm.spec.activation import tanh
from refllm.spec.array import Array, Tree, arange, tap
from refllm.spec.embedding import embedding
from refllm.spec.feed_forward import activated
from refllm.spec.linear import linear
from refllm.verify.ports.published.parts import mapped, norm


def bert_embedding(p: Tree, *, ids: Array, segments: Array, config: Tree) -> Array:
    """x = N(token[ids] + position + segment[segments])"""
    words, _ = embedding(p["token"], ids=ids)
    of_segments, _ = embedding(p["segment"], ids=segments)
    positions = arange(ids.shape[-1])
    s = tap("embedding_sum", words + p["position"][positions] + of_segments)
    return norm(s, p["norm"], eps=config["eps"])


def masked_logits(h: Array, p: Tree, *, config: Tree) -> Array:
    """N(f(h W + b)) tokenᵀ + bias"""
    z = mapped(h, p["masked"], "")
    a, _ = activated(z, activation=config["activation"])
    t = tap("transform", norm(a, p["masked"]["norm"], eps=config["eps"]))
    y, _ = linear(t, p["token"].T, p["masked"]["bias"])
    return y


def pooled(h: Array, p: Tree) -> Array:
    """tanh(h_1 W + b) of the first token."""
    z = mapped(h[:, 0], p["pooler"], "")
    y, _ = tanh(z)
    return y


def class_logits(c: Array, p: Tree) -> Array:
    """c W + b of the pooled state, for the classes of texts or of pairs."""
    return mapped(c, p, "")


def span_logits(h: Array, p: Tree) -> Array:
    """h W + b: the scores of every place as the start and as the end."""
    return mapped(h, p["span"], "")
