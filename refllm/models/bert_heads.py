"""The heads of BERT that read a text's states: its pooled state, what is made of that, and the ends of an answer.

`refllm.models.bert` offers them too, beside the head for masked words, whose decoder is the table of tokens.

Source: Devlin et al. 2019 (N19-1423, arXiv:1810.04805) sec. 3, 4.1 and 4.2; documents 000 sec. 3.2, 4.2.
"""

from __future__ import annotations

from collections.abc import Callable

from refllm.backend import Array, namespace
from refllm.blocks.residual import maybe_dropout
from refllm.differentiable import differentiable
from refllm.ops.activation import tanh
from refllm.ops.linear import linear
from refllm.parameters import Tree


@differentiable
def pooled(h: Array, p: Tree) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """BERT: one state for the whole text, tanh(h_[CLS] W + b); [CLS] is the first token

    Source:  Devlin et al. 2019 sec. 3 (C, the final state of [CLS]) and code; documents 000 sec. 4.2.
    Shapes:  h (B, T, C); pooler.W (C, C); pooler.b (C,) -> y (B, C)
    Back:    gives dh, zero but at [CLS], and the gradient of "pooler".

    >>> h = array([[[1000.0], [5.0]]])  # the state of [CLS], and another
    >>> pooled(h, {"pooler": {"W": ones((1, 1)), "b": zeros(1)}})[0].tolist()
    [[1.0]]
    """
    if not h.shape[1]:
        raise ValueError("pooled: h (B, T, C) needs a place for [CLS], the first token; got T = 0")
    if "pooler" not in p:
        raise ValueError("pooled: the parameters have no pooler; give a model that has one")
    z, back_linear = linear(h[:, 0], **p["pooler"])
    y, back_tanh = tanh(z)

    def back(dy: Array) -> tuple[Array, Tree]:
        dfirst, dW, db = back_linear(back_tanh(dy))
        dh = namespace(h).zeros_like(h)
        dh[:, 0] = dfirst
        return dh, {"pooler": {"W": dW, "b": db}}

    return y, back


@differentiable
def pair_logits(h: Array, p: Tree) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """NSP, SOP: two classes for a pair of segments; 0: b comes after a, 1: it does not

    Source:  Devlin et al. 2019 sec. 3.1; Lan et al. 2020 (arXiv:1909.11942) sec. 3.1; documents 000 sec. 3.2.
    Shapes:  h (B, T, C); pair.W (C, 2); pair.b (2,) -> y (B, 2)
    Back:    gives dh and the gradients of "pooler" and "pair".

    >>> p = {"pooler": {"W": ones((1, 1)), "b": zeros(1)}, "pair": {"W": array([[3.0, -3.0]]), "b": zeros(2)}}
    >>> pair_logits(array([[[1000.0], [5.0]]]), p)[0].tolist()
    [[3.0, -3.0]]
    """
    return _logits_of_pooled(h, p, head="pair", dropout_mask=None, rate=0.0)


@differentiable
def class_logits(
    h: Array, p: Tree, *, dropout_mask: Array | None, rate: float
) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """CLS: logits of the labels of a text, from its pooled state, with dropout before the last map

    Source:  Devlin et al. 2019 sec. 4.1 and code; documents 000 sec. 4.2.
    Shapes:  h (B, T, C); dropout_mask bool (B, C), or None; classes.W (C, labels); classes.b (labels,)
             -> y (B, labels)
    Back:    gives dh and the gradients of "pooler" and "classes".

    >>> p = {"pooler": {"W": ones((1, 1)), "b": zeros(1)}, "classes": {"W": array([[3.0, 2.0, 1.0]]), "b": zeros(3)}}
    >>> class_logits(array([[[1000.0]]]), p, dropout_mask=None, rate=0.0)[0].tolist()
    [[3.0, 2.0, 1.0]]
    """
    return _logits_of_pooled(h, p, head="classes", dropout_mask=dropout_mask, rate=rate)


def _logits_of_pooled(
    h: Array, p: Tree, *, head: str, dropout_mask: Array | None, rate: float
) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    c, back_pooled = pooled(h, p)
    d, back_drop = maybe_dropout(c, dropout_mask=dropout_mask, rate=rate)
    y, back_linear = linear(d, **p[head])

    def back(dy: Array) -> tuple[Array, Tree]:
        dd, dW, db = back_linear(dy)
        dh, dpooler = back_pooled(back_drop(dd))
        return dh, {**dpooler, head: {"W": dW, "b": db}}

    return y, back


@differentiable
def span_logits(h: Array, p: Tree) -> tuple[Array, Callable[[Array], tuple[Array, Tree]]]:
    """TASKS, extractive question answering: logits of the answer's start (column 0) and of its end (column 1)

    Source:  Devlin et al. 2019 sec. 4.2; documents 000 sec. 6.
    Shapes:  h (B, T, C); span.W (C, 2); span.b (2,) -> y (B, T, 2)
    Back:    gives dh and the gradient of "span".

    >>> p = {"span": {"W": array([[1.0, -1.0]]), "b": zeros(2)}}
    >>> span_logits(array([[[2.0], [5.0]]]), p)[0].tolist()  # a start and an end for each place
    [[[2.0, -2.0], [5.0, -5.0]]]
    """
    y, back_linear = linear(h, **p["span"])

    def back(dy: Array) -> tuple[Array, Tree]:
        dh, dW, db = back_linear(dy)
        return dh, {"span": {"W": dW, "b": db}}

    return y, back
