"""Mistakes of one thought that change more than an expression of the text: forms that other code has."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType

from refllm.spec import activation, layer_norm, repeat_heads, rotary
from refllm.verify.edits import Edit
from refllm.verify.plain import PUBLISHED
from refllm.verify.ports.candidates import Candidate, acting_through, called, whole_place
from refllm.verify.ports.evaluation import NOTHING, Change
from refllm.verify.ports.mistakes.after_taps import exchanged_values
from refllm.verify.ports.mistakes.families import (
    buckets_of_other_borders,
    dropout_scales,
    masks_that_are_too_small,
    norms_after_the_rotation,
    norms_over_all_heads,
    norms_that_are_not_read,
    outputs_times_the_root_of_the_width,
    parts_of_a_head_turned,
    places_one_too_high,
)
from refllm.verify.ports.mistakes.habit import COST, Habit, edited
from refllm.verify.ports.mistakes.leaves import COST as LESS_LIKELY
from refllm.verify.ports.mistakes.masks import inverted_and_finite, masks_otherwise
from refllm.verify.ports.mistakes.residuals import RESIDUALS
from refllm.verify.ports.mistakes.rotation import (
    biases_after_the_rotation,
    key_bias_after_the_rotation,
    middles_otherwise,
    narrow_rotations,
    rotations_all_in_16_bits,
)
from refllm.verify.ports.program import Program
from refllm.verify.ports.published import bert, encoder_decoder, gpt, llama, parts

# a function of the text, words that stand in it, those of the other code, and what that means
HABITS: list[Habit] = [
    (parts.norm, '1 + p["offset"]', 'p["offset"]', "the gain of the norms is the number in the files; 1 + it is right"),
    (
        parts.norm,
        "normalised(x, p, eps=eps)",
        'normalised(x, {**p, "g": 1 + p["g"]}, eps=eps)',
        "the gain of the norms is 1 + the number in the files; the number itself is right",
    ),
    (
        parts.norm,
        "normalised(x, p, eps=eps)",
        'normalised(x, {**p, "g": 1 + 0 * p["g"]}, eps=eps)',
        "the gains of the norms are left out",
    ),
    (
        parts.norm,
        "normalised(x, p, eps=eps)",
        'normalised(x, {**p, "b": 0 * p["b"]}, eps=eps)',
        "the shifts of the norms are left out",
    ),
    (parts.mapped, "y, _ = affine(x, p, name)", 'y = x @ p[f"W{name}"]', "the biases of the maps are left out"),
    (
        llama.turned,
        "return turned_halves(x, angle)",
        "return turned_neighbours(x, angle)",
        "the rotation turns pairs of neighbours; this model's pairs are the two halves of a head",
    ),
    (
        llama.turned_halves,
        "return concatenate(turn(x[..., :half], x[..., half:], angle), axis=-1)",
        "a, b, c, s = x[..., :half], x[..., half:], angle[..., arange(2 * half) // 2][..., :half], "
        "angle[..., arange(2 * half) // 2][..., half:]\n"
        "    return concatenate([turn(a, b, c)[0], turn(a, b, s)[1]], axis=-1)",
        "the angles are repeated in pairs, and the halves of a head are turned by them",
    ),
    (
        llama.turned,
        "return turned_halves(x, angle)",
        "return turned_halves(x, -angle)",
        "the rotation turns the other way",
    ),
    (llama.turned, "return turned_halves(x, angle)", "return x", "queries and keys are not turned"),
    (llama.grouped_attention, 'k = tap("k", turned(k, config=config))', 'k = tap("k", k)', "the keys are not turned"),
    (
        llama.grouped_attention,
        'q = tap("q", turned(q, config=config))',
        'q = tap("q", q)',
        "the queries are not turned",
    ),
    (
        llama.grouped_attention,
        'v = tap("v", cut(mapped(x, p, "v"), config["kv_heads"]))',
        'v = tap("v", turned(cut(mapped(x, p, "v"), config["kv_heads"]), config=config))',
        "the values are turned too",
    ),
    (
        repeat_heads.repeat_heads,
        "k[..., arange(G * groups) // groups, :, :]",
        "k[..., arange(G * groups) % G, :, :]",
        "query head h reads key head h mod G, where h // groups is right: the heads are tiled, not repeated",
    ),
    (
        rotary.turn,
        "return a * c - b * s, b * c + a * s",
        "return a * c + b * s, b * c - a * s",
        "the rotation turns the other way",
    ),
    (activation.gelu_erf, "Phi = erfc(-x / sqrt(2)) / 2", "Phi = sigmoid(1.702 * x)", "GELU as x sigmoid(1.702 x)"),
    (activation.gelu_tanh, "s = (1 + t) / 2", "s = sigmoid(1.702 * x)", "GELU as x sigmoid(1.702 x)"),
    (layer_norm.layer_norm, "c = x - mean(x)", "c = x", "the mean is not subtracted: RMS norm for layer norm"),
    (
        layer_norm.rms_norm,
        "r = 1 / sqrt(mean(x * x) + eps)",
        "x = x - mean(x)\n    r = 1 / sqrt(mean(x * x) + eps)",
        "the mean is subtracted: layer norm for RMS norm",
    ),
    (
        bert.pooled,
        "h[:, 0]",
        "sum(h, axis=1, keepdims=False) / h.shape[1]",
        "the pooled state is the mean of all tokens",
    ),
    (parts.visible, "if attention_mask is not None:", "if False:", "the mask of padding is ignored"),
    (
        parts.visible,
        "seen = seen & attention_mask[:, None, None, :]",
        "seen = seen & attention_mask[:, None, :, None]",
        "the mask of padding is laid over the queries, not over the keys",
    ),
    (parts.visible, "if causal:", "if True:", "attention is causal: a query does not see the keys after it"),
    (parts.visible, "if causal:", "if False:", "the causal mask is left out: a query sees the keys after it"),
    (
        parts.attended,
        's = where(seen, tap("scores", s), float("-inf"))\n    w, _ = softmax(s)',
        'w, _ = softmax(tap("scores", s))\n    w = where(seen, w, 0.0)',
        "the mask comes after the softmax: the weights that are left do not add up to 1",
    ),
    (parts.attended, "s = s + r", "s = s", "the bias by distance is left out"),
    (parts.visible, "distance >= 0", "distance > 0", "a query does not see the key of its own place"),
    (
        parts.attended,
        "s = q @ swap(k) / sqrt(width)",
        "s = q @ swap(k)",
        "the scores are not divided by the root of the width",
    ),
    (
        parts.attended,
        "s = q @ swap(k) / sqrt(width)",
        "s = q @ swap(k) / width",
        "the scores are divided by the width, not by its root",
    ),
    (
        parts.attended,
        's, _ = soft_cap(s, cap=cap)\n    s = where(seen, tap("scores", s), float("-inf"))',
        'pass\n    s, _ = soft_cap(where(seen, tap("scores", s), -1e30), cap=cap)',
        "the cap comes after the mask",
    ),
    *RESIDUALS,
    *norms_after_the_rotation(),
    *places_one_too_high(),
    *masks_that_are_too_small(),
    *dropout_scales(),
    *masks_otherwise(),
    *buckets_of_other_borders(),
    *norms_over_all_heads(),
    *norms_that_are_not_read(),
    *parts_of_a_head_turned(),
    *outputs_times_the_root_of_the_width(),
    *narrow_rotations(),
    *middles_otherwise(),
    *biases_after_the_rotation(),
    (gpt.gpt_norm, 'return norm(x, p["norm"], eps=config["eps"])', "return x", "the last norm is left out"),
    (llama.llama_norm, 'return norm(x, p["norm"], eps=config["eps"])', "return x", "the last norm is left out"),
    (bert.bert_embedding, 'norm(s, p["norm"], eps=config["eps"])', "s", "the norm of the embedding is left out"),
    (bert.masked_logits, "norm(a, p", "norm(z, p", "the transform before the output layer has no activation"),
    (
        llama.grouped_attention,
        'tap("q_normed", norm(q, p["query_norm"], eps=config["eps"]))',
        'tap("q_normed", q)',
        "the norm of the queries is left out, that of the keys is not",
    ),
    (
        llama.grouped_attention,
        'tap("k_normed", norm(k, p["key_norm"], eps=config["eps"]))',
        'tap("k_normed", k)',
        "the norm of the keys is left out, that of the queries is not",
    ),
    (
        encoder_decoder.stack_norm,
        'return norm(x, p["norm"], eps=config["eps"])',
        "return x",
        "the last norm of a half is left out",
    ),
    (
        encoder_decoder.cross_attention,
        "causal=False, window=0, attention_mask=attention_mask",
        "causal=False, window=0, attention_mask=None",
        "cross-attention ignores the mask of the source's padding",
    ),
    (
        encoder_decoder.encoder_layer,
        'p["attention"], r, causal=False, attention_mask=attention_mask',
        'p["attention"], r, causal=False, attention_mask=None',
        "the encoder ignores the mask of padding",
    ),
    (encoder_decoder.encoder_layer, "causal=False", "causal=True", "the encoder is causal"),
    (
        encoder_decoder.bias_of_decoder,
        "t5_bias_causal",
        "t5_bias_bidirectional",
        "the decoder has the buckets of both directions, which the encoder has",
    ),
    (
        encoder_decoder.bias_of_encoder,
        "t5_bias_bidirectional",
        "t5_bias_causal",
        "the encoder has the buckets of one direction, which the decoder has",
    ),
    (
        parts.by_places,
        "arange(T) - arange(T)[:, None]",
        "arange(T)[:, None] - arange(T)",
        "the distance is that from the key to the query: its sign is the other one",
    ),
    (parts.gated_feed_forward, "activated(g, activation=activation)", "(g, None)", "the gate has no activation"),
    (
        layer_norm.layer_norm,
        "mean(c * c)",
        "sum(c * c, axis=-1, keepdims=True) / (x.shape[-1] - 1)",
        "the variance is divided by C - 1, not by C",
    ),
    (
        layer_norm.layer_norm,
        "1 / sqrt(mean(c * c) + eps)",
        "1 / (sqrt(mean(c * c)) + eps)",
        "eps is added to the root, not under it",
    ),
    (
        layer_norm.rms_norm,
        "1 / sqrt(mean(x * x) + eps)",
        "1 / (sqrt(mean(x * x)) + eps)",
        "eps is added to the root, not under it",
    ),
    (bert.pooled, "y, _ = tanh(z)", "y = z", "the pooled state has no tanh"),
    (bert.pooled, "h[:, 0]", "h[:, -1]", "the pooled state is that of the last token"),
    (
        parts.attended,
        's = where(seen, tap("scores", s), float("-inf"))',
        's = where(seen, tap("scores", s), 0.0)',
        "scores that are not seen are 0 where they should be -inf",
    ),
]


def mistakes(program: Program) -> Iterator[Candidate]:
    there = {f for step in program.steps for f in called(step.text)}
    for function, old, new, said in HABITS:
        if function in there:
            assert isinstance(function, FunctionType)
            yield Candidate(said, COST, NOTHING, acting_through(function), [], edited(function, old, new, said))
    for said, edits in (*inverted_and_finite(), *rotations_all_in_16_bits()):
        if all(edit.original in there for edit in edits):
            yield _of_several(said, edits)
    late = key_bias_after_the_rotation()
    if late.original in there:
        yield Candidate(late.said, LESS_LIKELY, NOTHING, acting_through(late.original), [], late)
    for function in there:
        if function.__module__.startswith(PUBLISHED):
            for edit in exchanged_values(function):
                yield Candidate(edit.said, edit.cost, NOTHING, acting_through(function), [], edit)


def _of_several(said: str, edits: list[Edit]) -> Candidate:
    """One thought that changes several functions of the text."""
    functions = {edit.original: function for edit in edits if (function := edit.function()) is not None}
    lines = [(whole_place(edit), edit.diff()) for edit in edits]
    return Candidate(said, COST, Change(functions=functions), acting_through(edits[0].original), lines)
