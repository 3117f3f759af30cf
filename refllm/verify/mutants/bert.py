"""Mistakes of BERT: of its input, its encoder, its heads and the losses of its training."""

from __future__ import annotations

from refllm.spec.bert import bert, bert_states, class_head, masked_head, pretraining_loss, span_loss
from refllm.verify.mutants.bank import Edited, Edits, edit

NORM = 'n, norm_back = normalised(tap("embedding", placed + of_segments), p["norm"], eps=config["eps"])'
PLACED = 'placed, position_back = add_positions(words, p["position"], positions=arange(ids.shape[-1]))'
SEGMENTS = 'of_segments, segment_back = embedding(p["segment"], ids=segments)'
LAYER = 'x, p, norm="post", heads=config["heads"], causal=False, attention_mask=attention_mask,'
ACTIVATED, THROUGH = (
    'activation=config["activation"], eps=config["eps"],',
    'h, layers_back = through(tap("norm", n), p["layers"], layer)',
)
POOLED, TANH = 'z, pooler_back = linear(h[:, 0], pooler["W"], pooler["b"])', "c, tanh_back = tanh(z)"
FIRST = "dh = concatenate([dfirst[:, None], zeros(h[:, 1:].shape, h)], axis=1)"
TRANSFORMED, MASKED_NORM = (
    'a, activation_back = activated(z, activation=config["activation"])',
    't, norm_back = normalised(a, q["norm"], eps=config["eps"])',
)
WORDS = 'y, words_back = linear(tap("transform", t), p["token"].T, q["bias"])'
WORDS_BACK = 'return dh, {"masked": {"W": dW, "b": db, "norm": dnorm, "bias": dbias}, "token": dW_words.T}'
WHOLE, OF_BOTH = (
    "return complete(plus(states_back(dh), dhead), p)",
    "return complete(plus(plus(dstates, dwords), dclasses), p)",
)
MASKED = 'masked, masked_back = cross_entropy(words, targets=targets, ignore=ignore, reduction="mean")'
PAIR = 'pair, pair_back = cross_entropy(classes, targets=pairs, ignore=None, reduction="mean")'
PLACES = 'where(may_be, z, float("-inf")), targets=targets, ignore=None, reduction="mean"'


def segments(new: str) -> Edits:
    return edit(bert_states, SEGMENTS, SEGMENTS.replace("ids=segments", f"ids={new}"))


def layer(old: str, new: str) -> Edits:
    return edit(bert_states, LAYER, LAYER.replace(old, new))


def activation(new: str) -> Edits:
    return edit(bert_states, ACTIVATED, ACTIVATED.replace('config["activation"]', new))


def masked(old: str, new: str, *then: str) -> Edits:
    return edit(pretraining_loss, MASKED, "\n".join([MASKED.replace(old, new), *then]))


def pair(old: str, new: str, *then: str) -> Edits:
    return edit(pretraining_loss, PAIR, "\n".join([PAIR.replace(old, new), *then]))


# fmt: off
MUTANTS = [
    Edited("BERT/no-embedding-norm", "BERT without the norm after its embedding",
           edit(bert_states, NORM, 'n = tap("embedding", placed + of_segments)')),
    Edited("BERT/norm-of-words", "BERT whose first norm is of the words alone, before positions and segments",
           edit(bert_states, NORM,
                'n = normalised(words, p["norm"], eps=config["eps"])[0] + (placed - words) + of_segments')),
    Edited("BERT/no-positions", "BERT without positions", edit(bert_states, PLACED, "placed = words")),
    Edited("BERT/no-segments", "BERT without segments", edit(bert_states, NORM, NORM.replace(" + of_segments", ""))),
    Edited("BERT/segments-zero", "BERT with every token in segment 0", segments("0 * segments")),
    Edited("BERT/segments-exchanged", "BERT with the two segments exchanged", segments("1 - segments")),
    Edited("BERT/positions-from-one", "BERT with positions that count from 1", edit(
           bert_states, PLACED, PLACED.replace("arange(ids.shape[-1])", '(arange(ids.shape[-1]) + 1) % '
                                                                        'len(p["position"])'))),
    Edited("BERT/causal", "BERT with a causal mask", layer("causal=False", "causal=True")),
    Edited("BERT/pre-norm", "BERT with pre-norm layers", layer('"post"', '"pre"')),
    Edited("BERT/padding-attended", "BERT that attends to padding", layer("=attention_mask", "=None")),
    Edited("BERT/mask-inverted", "BERT that attends to padding alone",
           layer("=attention_mask", "=None if attention_mask is None else ~attention_mask")),
    Edited("BERT/padding-attends-nothing", "BERT whose padding attends nothing itself",
           layer("=attention_mask", "=None if attention_mask is None else attention_mask & swap(attention_mask)")),
    Edited("BERT/last-layer-skipped", "BERT without its last layer",
           edit(bert_states, THROUGH, THROUGH.replace('p["layers"]', 'p["layers"][:-1]'))),
    Edited("BERT/relu", "BERT with ReLU in its feed-forward layers", activation('"relu"')),
    Edited("BERT/other-gelu", "BERT with the other of the two GELUs in its feed-forward layers",
           activation('{"gelu_erf": "gelu_tanh", "gelu_tanh": "gelu_erf"}.get(config["activation"], '
                      'config["activation"])')),
    Edited("BERT/no-pooler-tanh", "BERT's pooler without tanh", edit(class_head, TANH, "c = z")),
    Edited("BERT/pooler-relu", "BERT's pooler with ReLU instead of tanh",
           edit(class_head, TANH, "c = where(z > 0, z, 0)")),
    Edited("BERT/pooler-of-last", "BERT's pooler on the last token instead of [CLS]",
           edit(class_head, POOLED, POOLED.replace("h[:, 0]", "h[:, -1]"))),
    Edited("BERT/pooler-of-mean", "BERT's pooler on the mean over the tokens instead of [CLS]",
           edit(class_head, POOLED, POOLED.replace("h[:, 0]", "sum(h, axis=1, keepdims=False) / h.shape[1]"))),
    Edited("BERT/back-pooler-detached", "BERT's pooler that passes no gradient to the encoder",
           edit(class_head, FIRST, "dh = 0 * h")),
    Edited("MLM/no-norm", "the transform of the masked words without its norm", edit(masked_head, MASKED_NORM,
           "t = a")),
    Edited("MLM/no-activation", "the transform of the masked words without its activation",
           edit(masked_head, TRANSFORMED, "a = z")),
    Edited("MLM/no-decoder-bias", "the logits of masked words without their bias",
           edit(masked_head, WORDS, 'y = tap("transform", t) @ p["token"].T')),
    Edited("MLM/decoder-bias-twice", "the logits of masked words with their bias twice",
           edit(masked_head, WORDS, WORDS.replace('q["bias"]', '2 * q["bias"]'))),
    Edited("MLM/back-decoder-dropped", "a tied decoder of masked words that gives the embedding no gradient",
           edit(masked_head, WORDS_BACK, WORDS_BACK.replace("dW_words.T", "0 * dW_words.T"))),
    Edited("MLM/back-embedding-dropped", "a tied decoder of masked words whose gradient overwrites the embedding's",
           edit(bert, WHOLE, "dp = plus(states_back(dh), dhead)\n"
                'return complete({**dp, "token": dhead.get("token", dp["token"])}, p)')
           + edit(pretraining_loss, OF_BOTH, 'dstates["token"] = 0 * dstates["token"]\n' + OF_BOTH)),
    Edited("MLM/all-places", "the loss of masked words over all places, not the masked ones alone",
           masked("targets=targets", "targets=where(targets == ignore, ids, targets)")),
    Edited("MLM/mean-over-all", "the loss of masked words averaged over all places",
           masked("mean", "sum", "masked = masked / targets.size")),
    Edited("MLM/sum", "the loss of masked words summed instead of averaged", masked("mean", "sum")),
    Edited("MLM/mean-over-texts", "the loss of masked words summed and divided by the texts",
           masked("mean", "sum", "masked = masked / len(ids)")),
    Edited("MLM/corrupted-words", "the loss of masked words against the words of the corrupted text",
           masked("targets=targets", "targets=where(targets == ignore, ignore, ids)")),
    Edited("NSP/classes-exchanged", "the loss of the pair with its two classes exchanged",
           pair("targets=pairs", "targets=1 - pairs")),
    Edited("NSP/sum", "the loss of the pair summed over the texts", pair("mean", "sum")),
    Edited("NSP/mean-over-masked", "the loss of the pair divided by the number of masked places",
           pair("mean", "sum", "pair = pair / (targets != ignore).sum()")),
    Edited("TASKS/span-sum", "the loss of an answer as the sum of start and end, not their mean",
           edit(span_loss, "return y, span_loss_back", "return 2 * y, span_loss_back")),
    Edited("TASKS/span-exchanged", "the loss of an answer with start and end exchanged",
           edit(span_loss, PLACES, PLACES.replace("targets=targets", "targets=targets[:, ::-1]"))),
    Edited("TASKS/span-anywhere", "the loss of an answer over every place, possible or not",
           edit(span_loss, "may_be = (everywhere(ids.shape) if answer_mask is None else answer_mask)[:, None, :]",
                "may_be = everywhere(ids.shape)[:, None, :]")),
]
