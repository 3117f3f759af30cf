"""Added tokens: cut out of a text as they are, before anything else is done with it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from refllm.errors import UserError
from refllm.tokenizers.published.runs import class_of, is_space

Cut = tuple[int, int, int | None]  # start, end, and the id of an added token

MOST = 1 << 17


@dataclass(frozen=True)
class Added:
    """An added token as tokenizer.json has it."""

    id: int
    content: str
    special: bool
    normalised: bool
    single_word: bool
    left: bool
    right: bool


def added_tokens(saved: Any) -> list[Added]:
    """UserError for what is no list of added tokens."""
    if not isinstance(saved, list) or len(saved) > MOST:
        raise UserError(f"the added_tokens of a tokenizer must be a list of at most {MOST:,}")
    found = []
    for one in saved:
        if not isinstance(one, dict) or type(one.get("id")) is not int or not isinstance(one.get("content"), str):
            raise UserError("an added token must have an id and a content; get the tokenizer.json again")
        special = bool(one.get("special", False))
        found.append(
            Added(
                one["id"], one["content"], special, bool(one.get("normalized", not special)),
                bool(one.get("single_word", False)), bool(one.get("lstrip", False)), bool(one.get("rstrip", False)),
            )
        )  # fmt: skip
    return found


def cutter(tokens: Sequence[Added], normalise: Callable[[str], str]) -> Callable[[str], list[Cut]] | None:
    """What cuts a text at these tokens, the leftmost and then the longest first; None where there are none."""
    by_content: dict[str, Added] = {}
    for token in tokens:
        content = normalise(token.content) if token.normalised else token.content
        if content:
            by_content.setdefault(content, token)
    if not by_content:
        return None
    pattern = re.compile("|".join(re.escape(one) for one in sorted(by_content, key=len, reverse=True)))
    plain = not any(t.single_word or t.left or t.right for t in by_content.values())

    def cut(text: str) -> list[Cut]:
        found: list[Cut] = []
        at = 0
        for match in pattern.finditer(text):
            token = by_content[match[0]]
            start, end = match.span()
            if not plain:
                if token.single_word and (_is_word(text, start - 1) or _is_word(text, end)):
                    continue
                while token.left and start > at and is_space(text[start - 1]):
                    start -= 1
                while token.right and end < len(text) and is_space(text[end]):
                    end += 1
            if start > at:
                found.append((at, start, None))
            found.append((start, end, token.id))
            at = end
        if at < len(text):
            found.append((at, len(text), None))
        return found

    return cut


def _is_word(text: str, place: int) -> bool:
    return 0 <= place < len(text) and (text[place] in class_of("W") or text[place] in "\u200c\u200d")
