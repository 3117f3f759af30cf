"""Mistakes of choosing a token, and of the loop that generates."""

from __future__ import annotations

import numpy

from refllm.backend import Array
from refllm.generation.cache import KeyValueCache
from refllm.spec.generate import generate, next_logits
from refllm.spec.sampling import choose, greedy, sample
from refllm.verify.mutants.bank import Edited, Edits, Patch, edit

KEPT, HEAT = "kept = descending(logits)[:top_k]", "p, _ = softmax(logits[kept] / temperature)"
MASS, NUCLEUS = "n = first(running(p), lambda s: s >= top_p)", "kept, p = kept[: n + 1], p[: n + 1] / total(p[: n + 1])"
ORDER = "by_number = sorted(range(len(kept)), key=kept.__getitem__)"
DRAWN = "return kept[by_number[first(running(p[by_number]), lambda s: s > uniform)]]"
TOP_P = f"if top_p is not None:\n{MASS}\n{NUCLEUS}"
NEXT, LAST = "last = next_logits(p, model, tokens, config=config)", "return logits[0, -1]"


def among(new: str) -> Edits:
    """Other tokens that top_k leaves, from the most probable to the least."""
    return edit(choose, KEPT, f"kept = {new}")


def heated(new: str) -> Edits:
    return edit(choose, HEAT, f"p, _ = softmax({new})")


def up_to(new: str) -> Edits:
    """Another last token that top_p leaves."""
    return edit(choose, MASS, f"n = {new}")


def _unseen_tokens(self: KeyValueCache, tokens: int) -> tuple[Array, Array | None]:
    """A cache that lets new tokens attend what it already held, and not themselves or each other."""
    positions, _ = _advance(self, tokens)
    start = self.length - tokens
    if start == 0:
        return positions, None
    return positions, (numpy.arange(self.length) < start)[None, None, None, :]


_advance = KeyValueCache.advance

# fmt: off
MUTANTS = [
    Edited("GEN/temperature-multiplied", "sampling with logits multiplied by the temperature",
           heated("logits[kept] * temperature")),
    Edited("GEN/temperature-ignored", "sampling that ignores the temperature", heated("logits[kept]")),
    Edited("GEN/temperature-squared", "sampling with logits divided by the temperature twice",
           heated("logits[kept] / temperature / temperature")),
    Edited("GEN/temperature-after-softmax", "sampling with probabilities, not logits, divided by the temperature, "
           "and a "
           "softmax of these", heated("softmax(logits)[0][kept] / temperature")),
    Edited("GEN/top-k-one-more", "sampling from the top_k + 1 largest",
           among("descending(logits)[: None if top_k is None else top_k + 1]")),
    Edited("GEN/top-k-one-less", "sampling from the top_k - 1 largest",
           among("descending(logits)[: None if top_k is None else max(1, top_k - 1)]")),
    Edited("GEN/top-k-ties", "sampling that keeps every logit equal to the k-th largest",
           edit(choose, KEPT, f"{KEPT}\nkept = [i for i in descending(logits) if logits[i] >= logits[kept[-1]]]"),
           "https://github.com/vllm-project/vllm/pull/15478"),
    Edited("GEN/top-k-later-of-equals", "sampling whose top_k keeps the later of two equal logits",
           edit(choose, KEPT, "later = sorted(range(len(logits)), key=lambda i: (-logits[i], -i))\n"
                "kept = sorted(later[:top_k], key=lambda i: (-logits[i], i))")),
    Edited("GEN/top-k-smallest", "sampling from the top_k smallest",
           among("sorted(descending(-logits)[:top_k], key=lambda i: -logits[i])")),
    Edited("GEN/top-k-zero-logits", "sampling that sets the other logits to 0 instead of -infinity",
           edit(choose, KEPT, f"{KEPT}\nlogits = where(one_hot(integers(kept), len(logits)).any(axis=0), logits, 0)\n"
                "kept = descending(logits)")),
    Edited("GEN/top-k-ignored", "sampling that ignores top_k", among("descending(logits)")),
    Edited("GEN/top-p-ignored", "sampling that ignores top_p", edit(choose, TOP_P, "")),
    Edited("GEN/top-p-without-crossing", "sampling without the token that crosses top_p",
           up_to("max(0, len([s for s in running(p) if s <= top_p]) - 1)"),
           "https://github.com/fishaudio/fish-speech/pull/1171"),
    Edited("GEN/top-p-one-more", "sampling with one token more when top_p is reached exactly",
           up_to("first(running(p), lambda s: s > top_p)"),
           "https://github.com/huggingface/transformers/issues/18976"),
    Edited("GEN/top-p-least-masks-all", "sampling whose top_p drops what 1 - top_p covers, the least probable first: a "
           "tiny top_p drops all",
           edit(choose, MASS, "left = [float32(1 - s + x) for s, x in zip(running(p), p)]\n"
                "n = len([x for x in left if x > float32(1 - top_p)]) - 1\n"
                "if n < 0:\n    return len(logits) - 1"), "https://github.com/ml-explore/mlx-lm/issues/1912"),
    Edited("GEN/top-p-complement", "sampling that takes top_p for the mass to be dropped",
           up_to("first(running(p), lambda s: s >= 1 - top_p)"),
           "https://github.com/lucidrains/x-transformers/issues/184"),
    Edited("GEN/top-p-ascending", "sampling whose top_p collects the least probable tokens first",
           edit(choose, MASS, "n = first(running(p), lambda s: 1 - s < top_p)",
                NUCLEUS, "kept, p = kept[n:], p[n:] / total(p[n:])")),
    Edited("GEN/top-p-threshold", "sampling that keeps tokens of probability above 1 - top_p",
           up_to("max(0, len([x for x in p if x > 1 - top_p]) - 1)")),
    Edited("GEN/top-p-after-what-was-cut", "sampling whose top_p counts what top_k cut away, as if it stood first",
           edit(choose, MASS, "every = softmax(logits / temperature)[0][descending(logits)]\n"
                "cut, p = total(every[len(kept) :]), every[: len(kept)]\n"
                "n = first(running(p), lambda s: cut + s >= top_p)"), "https://github.com/ml-explore/mlx-lm/pull/388"),
    Edited("GEN/temperature-last", "sampling whose top_p is of the distribution before the temperature",
           edit(choose, MASS, "n = first(running(softmax(logits[kept])[0]), lambda s: s >= top_p)")),
    Edited("GEN/rank-for-token", "sampling that gives the rank of the token in the order of size, not the token",
           edit(choose, DRAWN, "return first(running(p), lambda s: s > uniform)")),
    Edited("GEN/top-p-not-renormalised", "sampling that does not divide by the mass that top_p left",
           edit(choose, NUCLEUS, "kept, p = kept[: n + 1], p[: n + 1]")),
    Edited("GEN/top-p-before-top-k", "sampling with top_p applied before top_k",
           edit(choose, KEPT, "kept = descending(logits)\nif top_p is not None:\n"
                f"    {HEAT}\n    kept = kept[: first(running(p), lambda s: s >= top_p) + 1]\nkept = kept[:top_k]",
                TOP_P, "")),
    Edited("GEN/drawn-in-order-of-size", "sampling that runs through the tokens by probability, not by index",
           edit(choose, ORDER, "by_number = list(range(len(kept)))")),
    Edited("GEN/drawn-from-the-end", "sampling that runs through the tokens from the last",
           edit(choose, ORDER, "by_number = sorted(range(len(kept)), key=kept.__getitem__, reverse=True)")),
    Edited("GEN/reaches-not-exceeds", "sampling of the first token whose cumulative sum REACHES the uniform",
           edit(choose, DRAWN, "weight = dict(zip(kept, p))\n"
                "every = stack([weight.get(i, 0 * p[0]) for i in range(len(logits))], axis=0)\n"
                "return first(running(every), lambda s: s >= uniform)")),
    Edited("GEN/next-token", "sampling of the token after the one drawn",
           edit(choose, DRAWN, f"{DRAWN.replace('return ', 'return min(')} + 1, len(logits) - 1)")),
    Edited("GEN/one-uniform", "sampling with the first row's uniform for all rows",
           edit(sample, "for row, u in zip(logits, uniforms, strict=True)",
                "for row, u in zip(logits, [uniforms[0]] * len(logits), strict=True)")
           + edit(generate, "draws = [None] * len(ids) if uniforms is None else uniforms",
                  "draws = [None if uniforms is None else uniforms[0]] * len(ids)")),
    Edited("GEN/always-greedy", "sampling that takes the most probable token",
           edit(choose, DRAWN, "return kept[descending(p)[0]]")),
    Edited("GEN/weights-of-logits", "sampling by the logits' shares, without the exponential",
           edit(choose, HEAT, "z = logits[kept] / temperature\np = (z - min(z)) / total(z - min(z))")),
    Edited("GEN/greedy-smallest", "greedy choice of the smallest logit",
           edit(greedy, "return descending(logits)[0]", "return descending(-logits)[0]")),
    Edited("GEN/e6-starts-late", "generation that leaves the last token of the prompt unread (E6)",
           edit(generate, NEXT, "read = [*ids[:-1], *tokens[len(ids) :]] if len(ids) > 1 else tokens\n"
                "last = next_logits(p, model, read, config=config)")),
    Edited("GEN/first-place", "generation from the logits of the first place, not the last",
           edit(next_logits, LAST, "return logits[0, 0]")),
    Edited("GEN/place-before-last", "generation from the logits of the place before the last",
           edit(next_logits, LAST, "return logits[0, max(0, logits.shape[1] - 2)]")),
    Patch("GEN/cache-without-itself", KeyValueCache.advance, "a cache whose new tokens do not see themselves",
          _unseen_tokens),
]
