"""Mistakes of beam search."""

from __future__ import annotations

from typing import Any

from refllm.generation.cache import KeyValueCache
from refllm.spec.beam_search import Text, beam_search, over, search
from refllm.verify.mutants.bank import Edited, Edits, Patch, edit

SEARCH = "texts = search(after, end=end, longest=new_tokens, beams=beams, penalty=length_penalty)"
GIVEN = "found.append([text.tokens + [NOTHING] * (new_tokens - len(text.tokens)) for text in texts])"
SCORES = "scores.append(stack([text.score(length_penalty) for text in texts], axis=0))"
SCORE = "return self.sum / power(len(self.tokens), penalty)"
BOUND = "bound = going[0].sum / power(longest, penalty)  # log P falls with every token"
SORTED, FINISHED = (
    "every.sort(key=lambda text: -text.sum)",
    "finished += [text for text in every[:beams] if ends(text, end, longest)]",
)
GOING = "going = [text for text in every[: 2 * beams] if not ends(text, end, longest)][:beams]"
ENOUGH, WORST, IS_OVER = (
    "if len(finished) < beams:",
    "worst = finished[beams - 1].score(penalty)",
    "return bool(bound <= worst)",
)
FOUND = "return finished[:beams]"
AFTER = "return log_softmax(next_logits(p, model, [*prompt, *tokens], **reading))[0]"
START = "going, finished = [Text([], [])], list[Text]()"


def penalised(new: str) -> Edits:
    """Another exponent of the length."""
    return edit(beam_search, SEARCH, SEARCH.replace("=length_penalty", f"={new}"),
                SCORES, SCORES.replace("length_penalty", new))  # fmt: skip


def scored(given: str, score: str, bound: str) -> Edits:
    """Another score, which is given something else with the penalty α, and its bound."""
    return (
        edit(Text.score, SCORE, f"α, n = penalty\nreturn {score}")
        + edit(over, BOUND, f"α, n = penalty\nbound = {bound}")
        + penalised(f"(length_penalty, {given})")
    )


def _not_moved(self: KeyValueCache, sources: Any, targets: Any) -> None:
    """The texts move and what the cache holds of them does not."""


# fmt: off
MUTANTS = [
    Edited("GEN/beam-bound-by-present-length", "beam search that stops by the score that a text has at its length now",
           edit(over, BOUND, "bound = going[0].sum / power(len(going[0].tokens), penalty)"),
           "https://github.com/huggingface/transformers/issues/20901"),
    Edited("GEN/beam-no-length-penalty", "beam search without a length penalty", penalised("0")),
    Edited("GEN/beam-length-mean", "beam search by the mean of the log probabilities, whatever the penalty",
           penalised("1")),
    Edited("GEN/beam-penalty-of-wu", "beam search with the penalty ((5 + length) / 6)^α",
           edit(Text.score, SCORE, "return self.sum / power((5 + len(self.tokens)) / 6, penalty)")
           + edit(over, BOUND, "bound = going[0].sum / power((5 + longest) / 6, penalty)")),
    Edited("GEN/beam-penalty-inverse", "beam search that multiplies by the length penalty",
           penalised("-length_penalty")),
    Edited("GEN/beam-length-without-end", "beam search that does not count the end token in the length",
           scored("end", "self.sum / power(max(1, len(self.tokens) - (self.tokens[-1] == n)), α)",
                  "going[0].sum / power(longest, α)")),
    Edited("GEN/beam-length-with-prompt", "beam search that counts the prompt in the length",
           scored("len(prompt)", "self.sum / power(n + len(self.tokens), α)", "going[0].sum / power(n + longest, α)"),
           "https://github.com/huggingface/transformers/issues/26624"),
    Edited("GEN/beam-length-one-more", "beam search that counts the start of the text in its length",
           scored("1", "self.sum / power(n + len(self.tokens), α)", "going[0].sum / power(n + longest, α)")),
    Edited("GEN/beam-unended-unpenalised", "beam search whose texts that do not end have no length penalty",
           scored("end", "self.sum / power(len(self.tokens) if self.tokens[-1] == n else 1, α)",
                  "going[0].sum / power(longest, α)"), "https://github.com/awslabs/sockeye/issues/545"),
    Edited("GEN/beam-length-one-less", "beam search that counts the steps before a token in its length",
           scored("1", "self.sum / power(max(1, len(self.tokens) - n), α)",
                  "going[0].sum / power(max(1, longest - n), α)"),
           "https://github.com/awslabs/sockeye/issues/483"),
    Edited("GEN/beam-length-of-the-search", "beam search whose penalty is that of its present step, not of a text's "
           "own length",
           edit(Text.score, SCORE, "α, steps = penalty\nreturn self.sum / power(max(steps), α)")
           + edit(over, BOUND, "bound = going[0].sum / power(longest, penalty[0])")
           + edit(search, SORTED, f"{SORTED}\npenalty[1].append(len(every[0].tokens))")
           + edit(beam_search, SEARCH, "steps = [1]\n" + SEARCH.replace("=length_penalty", "=(length_penalty, steps)"),
                  SCORES, SCORES.replace("length_penalty", "(length_penalty, steps)")),
           "https://github.com/OpenNMT/OpenNMT-tf/pull/456"),
    Edited("GEN/beam-end-not-given", "beam search whose texts are given without their end token",
           edit(beam_search, GIVEN, "own = [[token for token in text.tokens if token != end] for text in texts]\n"
                "found.append([tokens + [NOTHING] * (new_tokens - len(tokens)) for tokens in own])")),
    Edited("GEN/beam-of-logits", "beam search that adds up logits instead of log probabilities",
           edit(beam_search, AFTER, "return next_logits(p, model, [*prompt, *tokens], **reading)")),
    Edited("GEN/beam-of-probabilities", "beam search that adds up probabilities instead of their logarithms",
           edit(beam_search, AFTER, AFTER.replace("return ", "return exp(") + ")")),
    Edited("GEN/beam-equal-starts", "beam search that begins with as many equal texts as beams",
           edit(search, START, START.replace("[Text([], [])]", "[Text([], [])] * beams"))),
    Edited("GEN/beam-end-ignored", "beam search that never ends a text",
           edit(beam_search, SEARCH, SEARCH.replace("end=end", "end=None"))),
    Edited("GEN/beam-finished-go-on", "beam search that goes on with texts that have ended",
           edit(search, GOING, "going = [text for text in every[: 2 * beams] if len(text.tokens) < longest][:beams]"),
           "https://github.com/facebookresearch/ParlAI/issues/2058"),
    Edited("GEN/beam-last-word", "beam search by the probability of the last word, not of the text",
           edit(search, SORTED, "every.sort(key=lambda text: -text.log_p[-1])")),
    Edited("GEN/beam-own-best", "beam search whose texts each go on with their own best word",
           edit(search, SORTED, f"{SORTED}\nif len(going) > 1:\n"
                "    first = {tuple(text.tokens[:-1]): text for text in reversed(every)}\n"
                "    every = [text for text in every if first[tuple(text.tokens[:-1])] is text]")),
    Edited("GEN/beam-narrow", "beam search whose texts that end leave a place empty",
           edit(search, GOING, GOING.replace("every[: 2 * beams]", "every[:beams]"))),
    Edited("GEN/beam-finishes-any", "beam search that finishes texts beyond the first `beams` too",
           edit(search, FINISHED, FINISHED.replace("every[:beams]", "every[: 2 * beams]"))),
    Edited("GEN/beam-stops-early", "beam search that stops at as many ended texts as beams, though a better one may "
           "come", edit(over, IS_OVER, "return True")),
    Edited("GEN/beam-stops-at-one", "beam search that stops at the first text that ends",
           edit(over, ENOUGH, "if not finished:", WORST, "worst = finished[-1].score(penalty)", IS_OVER, "return True")
           + edit(search, FOUND, "return sorted([*finished, *going], key=lambda text: -text.score(penalty))[:beams]")),
    Edited("GEN/beam-unsorted", "beam search with the least of its texts first",
           edit(search, FOUND, "return finished[:beams][::-1]")),
    Patch("GEN/beam-cache-not-moved", KeyValueCache.copy_rows, "beam search that moves its texts and not what their "
          "cache holds", _not_moved),
]
