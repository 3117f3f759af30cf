"""What stands around the tokens of a text, and how offsets are trimmed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refllm.errors import UserError
from refllm.tokenizers.published.normalisers import MOST_STAGES
from refllm.tokenizers.published.runs import is_space
from refllm.tokenizers.published.traced_text import Span


@dataclass(frozen=True)
class Processor:
    """Ids before and after a text; whether offsets leave out the spaces of a byte-level token."""

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    trims: bool = False
    prefixed: bool = False

    def trimmed(self, token: str, span: Span, *, first: bool) -> Span:
        """The offsets of a token without the spaces at its ends."""
        if not self.trims:
            return span
        start, end = span
        left = len(token) - len(_lstrip(token))
        right = len(token) - len(_lstrip(token[::-1]))
        if left:
            if self.prefixed and left == 1 and (first or start == 0):
                left = 0  # the space that was put there is none of the text
            start = min(start + left, end)
        if right and end >= right:
            end = max(end - right, start)
        return start, end


def _lstrip(token: str) -> str:
    place = 0
    while place < len(token) and (token[place] == "Ġ" or is_space(token[place])):
        place += 1
    return token[place:]


def processors(saved: Any, ids: Mapping[str, int]) -> list[Processor]:
    """The stages of a saved post-processor, none for null. UserError for a kind that is not supported."""
    if saved is None:
        return []
    kind = saved.get("type") if isinstance(saved, Mapping) else None
    if kind == "Sequence":
        parts = saved["processors"]
        if len(parts) > MOST_STAGES:
            raise UserError(f"a tokenizer with {len(parts)} processors is not supported; {MOST_STAGES} are the most")
        return [one for part in parts for one in processors(part, ids)]
    if kind == "ByteLevel":
        return [Processor(trims=saved.get("trim_offsets", True), prefixed=saved.get("add_prefix_space", True))]
    if kind in ("BertProcessing", "RobertaProcessing"):
        trims = kind == "RobertaProcessing" and bool(saved.get("trim_offsets", True))
        prefixed = bool(saved.get("add_prefix_space", True))
        return [Processor((int(saved["cls"][1]),), (int(saved["sep"][1]),), trims=trims, prefixed=prefixed)]
    if kind == "TemplateProcessing":
        return [_template(saved, ids)]
    raise UserError(f"the post_processor {str(kind)[:40]!r} of a tokenizer is not supported")


def _template(saved: Mapping[str, Any], ids: Mapping[str, int]) -> Processor:
    special = saved.get("special_tokens") or {}
    around: tuple[list[int], list[int]] = ([], [])
    seen = 0
    for piece in saved["single"]:
        if "Sequence" in piece:
            seen += 1
            continue
        name = piece["SpecialToken"]["id"]
        listed = special.get(name)
        known = listed["ids"] if listed else [ids[name]]
        around[min(seen, 1)].extend(int(i) for i in known)
    if seen != 1:
        raise UserError("a tokenizer whose template has the text other than once is not supported")
    return Processor(tuple(around[0]), tuple(around[1]))
