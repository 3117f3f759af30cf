"""Mistakes of byte-pair encoding: learning merges, and applying them."""

from __future__ import annotations

from refllm.spec.byte_pairs import encode_word, learn_merges, merged
from refllm.verify.mutants.bank import Edited, Edits, edit

BEST = "best = min(times, key=lambda pair: (-times[pair], pair), default=None)"
FIRST = "first = min(known, key=lambda pair: rank[pair])"


def best(new: str) -> Edits:
    return edit(learn_merges, BEST, f"best = min(times, key=lambda pair: {new}, default=None)")


# fmt: off
MUTANTS = [
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
    Edited("DATA/merges-overlap-uncounted", "byte pairs that count a pair of a row of equal ones once for two of them",
           edit(learn_merges, "for pair in pairwise(text):",
                "apart = [*pairwise(text)]\nlast = None\nfor n, pair in enumerate(apart):\n"
                "    last = None if n and pair == apart[n - 1] == last else pair\n    if last is None:\n"
                "        continue")),
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
]
