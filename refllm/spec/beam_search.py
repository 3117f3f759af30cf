"""Beam search: the most probable text, not the chain of most probable tokens."""

from collections.abc import Callable
from typing import NamedTuple

from refllm.spec.array import Array, Pullback, Tree, integers, part, power, stack, tap, total
from refllm.spec.generate import NOTHING, next_logits
from refllm.spec.softmax import log_softmax


class Text(NamedTuple):
    """The tokens after the prompt, and log P of each."""

    tokens: list[int]
    log_p: list[Array]

    @property
    def sum(self) -> Array:
        return total(stack(self.log_p, axis=0)) if self.log_p else 0.0

    def score(self, penalty: float) -> Array:
        """GEN: log P(text) / length^penalty"""
        return self.sum / power(len(self.tokens), penalty)


def beam_search(
    p: Tree, *, model: Callable[..., tuple[Array, Pullback]], ids: Array, source: Array | None,
    attention_mask: Array | None, end: int | None, new_tokens: int, beams: int, length_penalty: float, config: Tree,
) -> tuple[Array, Array]:  # fmt: skip
    """GEN: the `beams` best continuations of each row of ids, by log P(text) / length^length_penalty, best first; the
    end token counts, and -1 stands after it

    Source:  Wu et al. 2016 (arXiv:1609.08144) sec. 7; documents 002 sec. 3.2.
    Shapes:  ids (B, T); source (B, S); attention_mask bool (B, S) -> ids (B, beams, N), scores (B, beams)
    """
    found, scores = [], []
    for b, prompt in enumerate(ids):
        reading: Tree = {"config": config}
        if source is not None:
            reading |= {
                "source": source[b : b + 1],
                "attention_mask": None if attention_mask is None else attention_mask[b : b + 1],
            }

        def after(tokens: list[int], prompt: Array = prompt, reading: Tree = reading) -> Array:
            return log_softmax(next_logits(p, model, [*prompt, *tokens], **reading))[0]

        with part(f"rows.{b}"):
            texts = search(after, end=end, longest=new_tokens, beams=beams, penalty=length_penalty)
        found.append([text.tokens + [NOTHING] * (new_tokens - len(text.tokens)) for text in texts])
        scores.append(stack([text.score(length_penalty) for text in texts], axis=0))
    return integers(found), stack(scores, axis=0)


def search(
    after: Callable[[list[int]], Array], *, end: int | None, longest: int, beams: int, penalty: float
) -> list[Text]:
    """GEN: a step looks at the 2 beams most probable continuations of all texts. Of the first `beams`, those that end,
    or are `longest` long, are finished; the first `beams` that do not end go on. The search is over when `beams` texts
    are finished and none that goes on could reach a better score, even if all that is still to come had P = 1.

    Source:  as `beam_search`.
    """
    going, finished = [Text([], [])], list[Text]()
    while going and not over(going, finished, longest=longest, beams=beams, penalty=penalty):
        every = [
            Text([*text.tokens, token], [*text.log_p, x])
            for text in going
            for token, x in enumerate(after(text.tokens))
        ]
        every.sort(key=lambda text: -text.sum)
        tap(f"sums.{len(every[0].tokens)}", stack([text.sum for text in every[: 2 * beams + 1]], axis=0))
        finished += [text for text in every[:beams] if ends(text, end, longest)]
        finished.sort(key=lambda text: -text.score(penalty))
        going = [text for text in every[: 2 * beams] if not ends(text, end, longest)][:beams]
    tap("finished", stack([text.score(penalty) for text in finished[: beams + 1]], axis=0))
    return finished[:beams]


def ends(text: Text, end: int | None, longest: int) -> bool:
    """Whether a text goes no further."""
    return text.tokens[-1] == end or len(text.tokens) == longest


def over(going: list[Text], finished: list[Text], *, longest: int, beams: int, penalty: float) -> bool:
    """Whether no text that goes on can come before the last of the best `beams` that are finished."""
    if len(finished) < beams:
        return False
    bound = going[0].sum / power(longest, penalty)  # log P falls with every token
    worst = finished[beams - 1].score(penalty)
    tap(f"bound.{len(going[0].tokens)}", stack([bound, worst], axis=0))
    return bool(bound <= worst)
