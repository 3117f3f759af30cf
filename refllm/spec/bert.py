"""BERT: a Transformer encoder that sees both sides of every token, what its heads ask of it, and the losses."""

from refllm.spec.activation import tanh
from refllm.spec.array import (
    Array,
    Pullback,
    Tree,
    arange,
    concatenate,
    everywhere,
    like,
    part,
    swap,
    tap,
    total,
    where,
    zeros,
)
from refllm.spec.cross_entropy import cross_entropy, smoothed_cross_entropy
from refllm.spec.embedding import embedding
from refllm.spec.feed_forward import activated
from refllm.spec.layers import normalised, through
from refllm.spec.linear import linear
from refllm.spec.position import add_positions
from refllm.spec.transformer_layer import transformer_layer
from refllm.spec.tree import complete, plus


def bert(
    p: Tree, *, ids: Array, segments: Array, attention_mask: Array | None, output: str, config: Tree
) -> tuple[Array, Pullback]:
    """BERT: the states of all tokens, and what a head makes of them

    "hidden" the states (B, T, C); "masked" the logits of a word at every place (B, T, V); "pair" two classes (B, 2);
    "classes" (B, labels); "span" start and end (B, T, 2).
    Source:  Devlin et al. 2019 (arXiv:1810.04805) sec. 3, 4.
    Shapes:  ids (B, T) in [0, V); segments (B, T); attention_mask bool (B, 1, 1, T) -> y
    Back:    the gradient of a parameter that this output does not use is 0
    """
    h, states_back = bert_states(p, ids=ids, segments=segments, attention_mask=attention_mask, config=config)
    heads = {"hidden": hidden_head, "masked": masked_head, "pair": class_head, "classes": class_head, "span": span_head}
    y, head_back = heads[output](h, p, output, config)

    def bert_back(dy: Array) -> Tree:
        dh, dhead = head_back(dy)
        return complete(plus(states_back(dh), dhead), p)

    return y, bert_back


def bert_states(
    p: Tree, *, ids: Array, segments: Array, attention_mask: Array | None, config: Tree
) -> tuple[Array, Pullback]:
    """BERT: x = LN(token[ids] + position + segment[segments]);   h = layer_L( ... layer_1(x)), post-norm, both sides

    Source:  Devlin et al. 2019 (arXiv:1810.04805) sec. 3, fig. 2.
    Shapes:  ids (B, T) in [0, V); segments (B, T); attention_mask bool (B, 1, 1, T) -> h (B, T, C)
    """

    def layer(x: Array, p: Tree) -> tuple[Array, Pullback]:
        return transformer_layer(
            x, p, norm="post", heads=config["heads"], causal=False, attention_mask=attention_mask,
            activation=config["activation"], eps=config["eps"],
        )  # fmt: skip

    words, token_back = embedding(p["token"], ids=ids)
    placed, position_back = add_positions(words, p["position"], positions=arange(ids.shape[-1]))
    of_segments, segment_back = embedding(p["segment"], ids=segments)
    n, norm_back = normalised(tap("embedding", placed + of_segments), p["norm"], eps=config["eps"])
    h, layers_back = through(tap("norm", n), p["layers"], layer)

    def states_back(dh: Array) -> Tree:
        dn, dlayers = layers_back(dh)
        dx, dnorm = norm_back(dn)
        dwords, dposition = position_back(dx)
        dtoken, dsegment = token_back(dwords), segment_back(dx)
        return {"token": dtoken, "position": dposition, "segment": dsegment, "norm": dnorm, "layers": dlayers}

    return h, states_back


# --- the heads: each gives dh and the gradients of what it uses -------------------------------------------------------


def hidden_head(h: Array, p: Tree, output: str, config: Tree) -> tuple[Array, Pullback]:
    """BERT: the states themselves

    Source:  Devlin et al. 2019 (arXiv:1810.04805) sec. 3.
    Shapes:  h (B, T, C) -> y (B, T, C)
    """

    def hidden_head_back(dy: Array) -> tuple[Array, Tree]:
        return dy, {}

    return h, hidden_head_back


def masked_head(h: Array, p: Tree, output: str, config: Tree) -> tuple[Array, Pullback]:
    """MLM: y = LN(f(h W + b)) tokenᵀ + bias

    Source:  Devlin et al. 2019 (arXiv:1810.04805) sec. 3.1, and its code for the transform.
    Shapes:  h (B, T, C); W (C, C); b (C,); bias (V,) -> y (B, T, V)
    """
    q = p["masked"]
    z, transform_back = linear(h, q["W"], q["b"])
    a, activation_back = activated(z, activation=config["activation"])
    t, norm_back = normalised(a, q["norm"], eps=config["eps"])
    y, words_back = linear(tap("transform", t), p["token"].T, q["bias"])

    def masked_head_back(dy: Array) -> tuple[Array, Tree]:
        dt, dW_words, dbias = words_back(dy)
        da, dnorm = norm_back(dt)
        dh, dW, db = transform_back(activation_back(da))
        return dh, {"masked": {"W": dW, "b": db, "norm": dnorm, "bias": dbias}, "token": dW_words.T}

    return tap("logits", y), masked_head_back


def class_head(h: Array, p: Tree, output: str, config: Tree) -> tuple[Array, Pullback]:
    """NSP, CLS: y = c W + b,   c = tanh(h_1 W' + b'), of the first token, with the pooler's W' and b'

    Source:  Devlin et al. 2019 (arXiv:1810.04805) sec. 3.1, 4.1, and its code for the pooler.
    Shapes:  h (B, T, C); W' (C, C); b' (C,); W (C, N); b (N,) -> y (B, N)
    """
    pooler, q = p["pooler"], p[output]
    z, pooler_back = linear(h[:, 0], pooler["W"], pooler["b"])
    c, tanh_back = tanh(z)
    y, classes_back = linear(tap("pooled", c), q["W"], q["b"])

    def class_head_back(dy: Array) -> tuple[Array, Tree]:
        dc, dW, db = classes_back(dy)
        dfirst, dW_pooler, db_pooler = pooler_back(tanh_back(dc))
        dh = concatenate([dfirst[:, None], zeros(h[:, 1:].shape, h)], axis=1)
        return dh, {"pooler": {"W": dW_pooler, "b": db_pooler}, output: {"W": dW, "b": db}}

    return tap("logits", y), class_head_back


def span_head(h: Array, p: Tree, output: str, config: Tree) -> tuple[Array, Pullback]:
    """TASKS: y = h W + b: the scores of every place as the start and as the end of a span

    Source:  Devlin et al. 2019 (arXiv:1810.04805) sec. 4.2.
    Shapes:  h (B, T, C); W (C, 2); b (2,) -> y (B, T, 2)
    """
    y, linear_back = linear(h, p["span"]["W"], p["span"]["b"])

    def span_head_back(dy: Array) -> tuple[Array, Tree]:
        dh, dW, db = linear_back(dy)
        return dh, {"span": {"W": dW, "b": db}}

    return tap("logits", y), span_head_back


# --- the losses -------------------------------------------------------------------------------------------------------


def pretraining_loss(
    p: Tree, *, ids: Array, segments: Array, attention_mask: Array | None, targets: Array, ignore: int | None,
    pairs: Array, config: Tree,
) -> tuple[tuple[Array, Array], Pullback]:  # fmt: skip
    """MLM, NSP: the mean of -log P(word) over the masked places, those whose target is not ignored, and the mean of
    -log P(class of the pair) over the texts; the training loss is their sum

    Source:  Devlin et al. 2019 (arXiv:1810.04805) sec. 3.1, A.2 (erratum E16: the sum is over the masked places).
    Shapes:  ids (B, T) in [0, V); segments (B, T); attention_mask bool (B, 1, 1, T); targets (B, T) in [0, V); pairs
             (B,) -> masked (), pair ()
    Back:    takes the gradients of both; dh is the sum of what the two heads give
    """
    h, states_back = bert_states(p, ids=ids, segments=segments, attention_mask=attention_mask, config=config)
    words, words_back = masked_head(h, p, "masked", config)
    with part("pair"):
        classes, classes_back = class_head(h, p, "pair", config)
    masked, masked_back = cross_entropy(words, targets=targets, ignore=ignore, reduction="mean")
    pair, pair_back = cross_entropy(classes, targets=pairs, ignore=None, reduction="mean")

    def pretraining_loss_back(dmasked: Array, dpair: Array) -> Tree:
        dh_words, dwords = words_back(masked_back(dmasked))
        dh_classes, dclasses = classes_back(pair_back(dpair))
        dstates = states_back(dh_words + dh_classes)
        return complete(plus(plus(dstates, dwords), dclasses), p)

    return (masked, pair), pretraining_loss_back


def classifier_loss(
    p: Tree, *, ids: Array, segments: Array, attention_mask: Array | None, targets: Array, weights: Array | None,
    smoothing: float, config: Tree,
) -> tuple[Array, Pullback]:  # fmt: skip
    """CLS: y = Σ_n w_n loss_n / Σ_n w_n,   loss_n = -log P(label of text n), or that against smoothed labels

    One prediction per text (erratum E13). All weights are 1 where none are given.
    Source:  Devlin et al. 2019 (arXiv:1810.04805) sec. 4.1; Szegedy et al. 2016 (arXiv:1512.00567) sec. 7.
    Shapes:  ids (B, T) in [0, V); segments (B, T); attention_mask bool (B, 1, 1, T); targets (B,); weights (B,) -> y ()
    """
    logits, bert_back = bert(
        p, ids=ids, segments=segments, attention_mask=attention_mask, output="classes", config=config
    )
    losses, losses_back = smoothed_cross_entropy(
        logits, targets=targets, ignore=None, smoothing=smoothing, reduction="none"
    )
    w = like(everywhere(losses.shape) if weights is None else weights, losses)

    def classifier_loss_back(dy: Array) -> Tree:
        return bert_back(losses_back(dy * w / total(w)))

    return total(w * losses) / total(w), classifier_loss_back


def span_loss(
    p: Tree,
    *,
    ids: Array,
    segments: Array,
    attention_mask: Array | None,
    answer_mask: Array | None,
    targets: Array,
    config: Tree,
) -> tuple[Array, Pullback]:
    """TASKS: y = mean over the texts, and over start and end, of -log P(place), a softmax over the possible places

    Source:  Devlin et al. 2019 (arXiv:1810.04805) sec. 4.2.
    Shapes:  ids (B, T) in [0, V); segments (B, T); attention_mask bool (B, 1, 1, T); answer_mask bool (B, T); targets
             (B, 2) -> y ()
    """
    scores, bert_back = bert(p, ids=ids, segments=segments, attention_mask=attention_mask, output="span", config=config)
    z = swap(scores)
    may_be = (everywhere(ids.shape) if answer_mask is None else answer_mask)[:, None, :]
    y, cross_entropy_back = cross_entropy(
        where(may_be, z, float("-inf")), targets=targets, ignore=None, reduction="mean"
    )

    def span_loss_back(dy: Array) -> Tree:
        dz = where(may_be, cross_entropy_back(dy), 0)
        return bert_back(swap(dz))

    return y, span_loss_back
