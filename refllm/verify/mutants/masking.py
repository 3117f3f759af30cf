"""Mistakes of masking: which words a masked language model does not see, and what stands in their place."""

from __future__ import annotations

from refllm.spec.masking import mask_words, padded
from refllm.verify.mutants.bank import Edited, Edits, edit

SELECTED = "selected = sorted(sorted(ordinary, key=lambda t: which[b, t])[:count])"
COUNT = "count = max(1, nearest(share * len(ordinary)))"
TARGETS = "targets.append([ids[b, t] for t in selected])"


def count(new: str) -> Edits:
    return edit(mask_words, COUNT, f"count = {new}")


# fmt: off
MUTANTS = [
    Edited("MLM/mask-always", "masking that puts [MASK] at every selected place",
           edit(mask_words, "if how[b, t] < MASKED:", "if how[b, t] < 2:")),
    Edited("MLM/mask-borders-reversed", "masking with 10 % [MASK] and 80 % other words",
           edit(mask_words, "if how[b, t] < MASKED:", "if how[b, t] < REPLACED:")),
    Edited("MLM/mask-tenth-of-the-rest", "masking with other words in a tenth of what is not masked, not of all",
           edit(mask_words, "elif how[b, t] < MASKED + REPLACED:",
                "elif how[b, t] < MASKED + REPLACED * (1 - MASKED):"),
           "https://github.com/huggingface/transformers/issues/17377"),
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
]
