"""Mistakes around a model: hidden words, prompts of unequal length, adapters, distillation, 8 bits, byte pairs."""

from __future__ import annotations

from typing import Any

from refllm.backend import namespace
from refllm.generation.cache import KeyValueCache
from refllm.spec.byte_pairs import encode_word, learn_merges, merged
from refllm.spec.distillation import distillation_loss
from refllm.spec.generate import generate_padded
from refllm.spec.low_rank import low_rank_linear
from refllm.spec.masking import mask_words, padded
from refllm.spec.quantised import quantised
from refllm.verify.mutants.bank import Edited, Edits, Patch, edit

SCALE = "scale = alpha / A.shape[-1]"
SELECTED = "selected = sorted(sorted(ordinary, key=lambda t: which[b, t])[:count])"
COUNT = "count = max(1, nearest(share * len(ordinary)))"
TARGETS = "targets.append([ids[b, t] for t in selected])"
LOSS = "y = (1 - share) * hard + share * temperature**2 * soft"
SOFT_BACK = "dscaled, _ = soft_back(share * temperature**2 * dy)"
LARGEST = "largest = top(swap(where(W < 0, -W, W)))[:, 0]"
BEST = "best = min(times, key=lambda pair: (-times[pair], pair), default=None)"
FIRST = "first = min(known, key=lambda pair: rank[pair])"
PROMPT = "text, seen = generate(p, ids=ids[b, first:], uniforms=own, **how)"


def scale(new: str) -> Edits:
    return edit(low_rank_linear, SCALE, f"scale = {new}")


def count(new: str) -> Edits:
    return edit(mask_words, COUNT, f"count = {new}")


def loss(new: str) -> Edits:
    """Another mixture, with its own gradient."""
    return edit(distillation_loss, LOSS, f"y = {new}")


def best(new: str) -> Edits:
    return edit(learn_merges, BEST, f"best = min(times, key=lambda pair: {new}, default=None)")


_advance = KeyValueCache.advance


def _positions_of_places(cache: KeyValueCache, tokens: int) -> Any:
    own, seen = _advance(cache, tokens)
    return (own if seen is None else namespace(seen).arange(cache.length - tokens, cache.length)), seen


def _padding_seen(cache: KeyValueCache, tokens: int) -> Any:
    return _advance(cache, tokens)[0], None


def _padding_seen_later(cache: KeyValueCache, tokens: int) -> Any:
    own, seen = _advance(cache, tokens)
    return own, (seen if cache.length == tokens else None)


# fmt: off
MUTANTS = [
    # low-rank adapters
    Edited("FINETUNE/low-rank-alpha-alone", "an adapter scaled by alpha instead of alpha / r", scale("alpha")),
    Edited("FINETUNE/low-rank-no-scale", "an adapter that is not scaled", scale("1.0")),
    Edited("FINETUNE/low-rank-root", "an adapter scaled by alpha / √r, as rank-stabilised adapters are",
           scale("alpha / A.shape[-1] ** 0.5")),
    Edited("FINETUNE/low-rank-whole-numbers", "an adapter scaled by alpha // r: whole numbers are divided",
           scale("alpha // A.shape[-1]")),
    Edited("FINETUNE/low-rank-width", "an adapter scaled by alpha over the width of the input instead of the rank",
           scale("alpha / A.shape[0]")),
    Edited("FINETUNE/low-rank-scales-both", "an adapter whose scale goes over the trained matrix too",
           edit(low_rank_linear, "y = x @ W + scale * (z @ B)", "y = scale * (x @ W + z @ B)")),
    Edited("FINETUNE/low-rank-alone", "an adapter in the place of the trained matrix instead of beside it",
           edit(low_rank_linear, "y = x @ W + scale * (z @ B)", "y = scale * (z @ B)")),
    Edited("FINETUNE/low-rank-gradient-unscaled-a", "an adapter whose gradient of A lacks the scale",
           edit(low_rank_linear, "dz = scale * (dy @ swap(B))", "dz = dy @ swap(B)")),
    Edited("FINETUNE/low-rank-gradient-unscaled-b", "an adapter whose gradient of B lacks the scale",
           edit(low_rank_linear, "dB = scale * (swap(flat(z)) @ flat(dy))", "dB = swap(flat(z)) @ flat(dy)")),
    Edited("FINETUNE/low-rank-gradient-trained-alone", "an adapter through which no gradient reaches the input",
           edit(low_rank_linear, "dx = dy @ swap(W) + dz @ swap(A)", "dx = dy @ swap(W)")),
    # distillation
    Edited("COMPRESS/distil-no-square", "distillation without T²: the teacher says less the higher the temperature",
           loss("(1 - share) * hard + share * soft")),
    Edited("COMPRESS/distil-temperature-once", "distillation with T instead of T²",
           loss("(1 - share) * hard + share * temperature * soft")),
    Edited("COMPRESS/distil-shares-exchanged", "distillation with the shares of teacher and labels exchanged",
           loss("share * hard + (1 - share) * temperature**2 * soft")),
    Edited("COMPRESS/distil-square-on-both", "distillation with T² on the labels' loss too",
           loss("temperature**2 * ((1 - share) * hard + share * soft)")),
    Edited("COMPRESS/distil-added", "distillation that adds the teacher's part to the whole of the labels'",
           loss("hard + share * temperature**2 * soft")),
    Edited("COMPRESS/distil-teacher-not-softened", "distillation that softens the student alone",
           edit(distillation_loss, "q, _ = softmax(like(teacher, logits) / temperature)",
                "q, _ = softmax(like(teacher, logits))")),
    Edited("COMPRESS/distil-student-not-softened", "distillation that softens the teacher alone",
           edit(distillation_loss, 'soft, soft_back = soft_cross_entropy(logits / temperature, q, reduction="none")',
                'soft, soft_back = soft_cross_entropy(logits, q, reduction="none")',
                "return hard_back((1 - share) * dy) + dscaled / temperature",
           "return hard_back((1 - share) * dy) + dscaled")),
    Edited("COMPRESS/distil-gradient-no-square", "distillation whose gradient lacks T²",
           edit(distillation_loss, SOFT_BACK, "dscaled, _ = soft_back(share * dy)")),
    Edited("COMPRESS/distil-gradient-not-softened", "distillation whose gradient is not divided by the temperature",
           edit(distillation_loss, "return hard_back((1 - share) * dy) + dscaled / temperature",
                "return hard_back((1 - share) * dy) + dscaled")),
    # 8 bits
    Edited("COMPRESS/int8-half-up", "8-bit weights with halves rounded up instead of to the even number",
           edit(quantised, "return nearest(W / s), s",
                "return nearest(W / s + (W / s - nearest(W / s) == 0.5) * 0.25), s")),
    Edited("COMPRESS/int8-cut", "8-bit weights that are cut towards zero instead of rounded",
           edit(quantised, "return nearest(W / s), s", "return integers((W / s).tolist()), s")),
    Edited("COMPRESS/int8-128", "8-bit weights with max|W| / 128 as their scale",
           edit(quantised, "s = largest / LARGEST + is_zero(largest)", "s = largest / 128 + is_zero(largest)")),
    Edited("COMPRESS/int8-one-scale", "8-bit weights with one scale for the matrix",
           edit(quantised, "s = largest / LARGEST + is_zero(largest)",
                "s = spread(top(largest), largest.shape) / LARGEST + is_zero(largest)")),
    Edited("COMPRESS/int8-signed-largest", "8-bit weights whose scale is the largest weight, not the largest size",
           edit(quantised, LARGEST, "largest = top(swap(W))[:, 0]")),
    Edited("COMPRESS/int8-zeros", "8-bit weights with 0 / 0 in a channel of zeros",
           edit(quantised, "s = largest / LARGEST + is_zero(largest)", "s = largest / LARGEST")),
    Edited("COMPRESS/int8-small-eps", "8-bit weights with a scale of at least 1e-5",
           edit(quantised, "s = largest / LARGEST + is_zero(largest)",
                "s = where(largest / LARGEST > 1e-5, largest / LARGEST, 1e-5)")),
    # hidden words
    Edited("MLM/mask-always", "masking that puts [MASK] at every selected place",
           edit(mask_words, "if how[b, t] < MASKED:", "if how[b, t] < 2:")),
    Edited("MLM/mask-borders-reversed", "masking with 10 % [MASK] and 80 % other words",
           edit(mask_words, "if how[b, t] < MASKED:", "if how[b, t] < REPLACED:")),
    Edited("MLM/mask-border-included", "masking with `at most` instead of `below`",
           edit(mask_words, "if how[b, t] < MASKED:", "if how[b, t] <= MASKED:")),
    Edited("MLM/mask-no-other-words", "masking without other words: [MASK] or the same",
           edit(mask_words, "text[t] = words[b, t]", "text[t] = ids[b, t]")),
    Edited("MLM/mask-targets-changed-alone", "masking that asks for nothing where the word stays",
           edit(mask_words, TARGETS,
                "targets.append([ids[b, t] if text[t] != ids[b, t] else NO_TARGET for t in selected])")),
    Edited("MLM/mask-targets-corrupted", "masking whose targets are the words that were put in",
           edit(mask_words, TARGETS, "targets.append([text[t] for t in selected])")),
    Edited("MLM/mask-special-too", "masking that selects special tokens and padding",
           edit(mask_words, "ordinary = [t for t in range(T) if ids[b, t] not in special]",
                "ordinary = list(range(T))")),
    Edited("MLM/mask-share-of-places", "masking of a share of all places, padding counted",
           count("max(1, nearest(share * T))")),
    Edited("MLM/mask-cut", "masking with the number of words cut instead of rounded",
           count("max(1, int(share * len(ordinary)))")),
    Edited("MLM/mask-maybe-none", "masking that selects no word of a short text",
           count("nearest(share * len(ordinary))")),
    Edited("MLM/mask-largest", "masking of the places with the largest draws",
           edit(mask_words, SELECTED, "selected = sorted(sorted(ordinary, key=lambda t: -which[b, t])[:count])")),
    Edited("MLM/mask-threshold", "masking of each word with that probability: another number every time",
           edit(mask_words, SELECTED, "selected = [t for t in ordinary if which[b, t] < share]")),
    Edited("MLM/mask-unsorted", "masking whose places stand in the order of the draws",
           edit(mask_words, SELECTED, "selected = sorted(ordinary, key=lambda t: which[b, t])[:count]")),
    Edited("MLM/mask-slots-ask", "masking whose empty slots ask for token 0",
           edit(padded, "return integers([[*row, *[filling] * (longest - len(row))] for row in rows])",
                "return integers([[*row, *[0] * (longest - len(row))] for row in rows])")),
    # byte pairs
    Edited("DATA/merges-last-tie", "byte pairs with ties to the larger ids",
           best("(-times[pair], -pair[0], -pair[1])")),
    Edited("DATA/merges-tie-by-second", "byte pairs with ties by the second token",
           best("(-times[pair], pair[1], pair[0])")),
    Edited("DATA/merges-tie-first-met", "byte pairs with ties to the pair that was met first", best("-times[pair]")),
    Edited("DATA/merges-rarest", "byte pairs that join the rarest pair", best("(times[pair], pair)")),
    Edited("DATA/merges-words-once", "byte pairs that count a word once, however often it occurs",
           edit(learn_merges, "times[pair] = times.get(pair, 0) + int(count)", "times[pair] = times.get(pair, 0) + 1")),
    Edited("DATA/merges-pair-once-a-word", "byte pairs that count a pair once a word",
           edit(learn_merges, "for pair in pairwise(text):", "for pair in dict.fromkeys(pairwise(text)):")),
    Edited("DATA/merges-once-too", "byte pairs that join a pair that occurs once",
           edit(learn_merges, "if best is None or times[best] < 2:", "if best is None:")),
    Edited("DATA/merges-not-replaced", "byte pairs that do not write the words anew: the same pair over and over",
           edit(learn_merges, "texts = [merged(text, best, BYTES + len(merges)) for text in texts]",
                "texts = list(texts)")),
    Edited("DATA/encode-first-place", "byte pairs applied from the left, not in the order learnt",
           edit(encode_word, FIRST, "first = known[0]")),
    Edited("DATA/encode-last-learnt", "byte pairs applied with the last that was learnt first",
           edit(encode_word, FIRST, "first = max(known, key=lambda pair: rank[pair])")),
    Edited("DATA/encode-one-pass", "byte pairs applied in one pass over the merges",
           edit(encode_word, "while known := [pair for pair in pairwise(text) if pair in rank]:",
                "for known in [[pair] for pair in pairwise(text) if pair in rank]:")),
    Edited("DATA/encode-lowest-bytes", "byte pairs applied in the order of their ids",
           edit(encode_word, FIRST, "first = min(known)")),
    Edited("DATA/merged-overlap", "byte pairs that use a byte of a row of equal ones twice",
           edit(merged, "t += 2 if here else 1", "t += 2 if here and text[t : t + 3] != [text[t]] * 3 else 1")),
    Edited("DATA/merged-first-place-alone", "byte pairs that join the pair at its first place alone",
           edit(merged, "here = tuple(text[t : t + 2]) == pair",
                "here = tuple(text[t : t + 2]) == pair and len(found) == t")),
    # prompts of unequal length
    Edited("GEN/padded-attended", "generation that reads the padding of a prompt as words",
           edit(generate_padded, PROMPT,
                "text, seen = generate(p, ids=ids[b], uniforms=own, **how)\ntext = text[first:]")),
    Edited("GEN/padded-on-the-right", "generation that takes the padding to be on the right",
           edit(generate_padded, PROMPT,
                "text, seen = generate(p, ids=ids[b, : ids.shape[1] - first], uniforms=own, **how)")),
    Edited("GEN/padded-by-the-first", "generation with the padding of the first row in every row",
           edit(generate_padded, PROMPT,
                "text, seen = generate(p, ids=ids[b, padding[0] :], uniforms=own, **how)\n"
                "text = [*ids[b, first:], *text[-len(seen) :]]")),
    Edited("GEN/padded-draws-shifted", "generation that takes a row's draws from its padding on",
           edit(generate_padded, "own = None if draws is None else draws[b]",
                "own = None if draws is None else [*draws[b][first:], *draws[b][:first]]")),
    Patch("GEN/padded-positions-of-places", KeyValueCache.advance,
          "generation that counts positions from the first place, padding or not", _positions_of_places),
    Patch("GEN/padded-seen", KeyValueCache.advance, "generation in which words attend the padding before them",
          _padding_seen),
    Patch("GEN/padded-seen-later", KeyValueCache.advance,
          "generation that hides the padding from the prompt and not from the words that follow", _padding_seen_later),
]
