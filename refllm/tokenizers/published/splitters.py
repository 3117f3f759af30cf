"""How a text is cut into words: stages that change it, and stages that give parts of what they are given."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from refllm.errors import UserError
from refllm.tokenizers.published.normalisers import MOST_STAGES, pattern_of
from refllm.tokenizers.published.patterns import SPACES, compiled
from refllm.tokenizers.published.runs import class_of
from refllm.tokenizers.published.traced_text import Traced

Span = tuple[int, int]
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
BEHAVIOURS = ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous")


@dataclass(frozen=True)
class Splitter:
    """One stage. `front` is put before a text that does not begin with it: before every one, or before the first of all
    alone. `spaces` are replaced. `cut` says where the words are, None where the text stays whole; `words` is the same
    for a text whose every character is in a word. `spelled` says that the words are bytes from here on."""

    front: str = ""
    first_alone: bool = False
    spaces: str = ""
    cut: Callable[[str], list[Span]] | None = None
    words: Callable[[str], list[str]] | None = None
    spelled: bool = False

    def plain(self, text: str, *, first: bool) -> list[str]:
        if self.spaces:
            text = text.replace(" ", self.spaces)
        if self.front and not text.startswith(self.front) and (first or not self.first_alone):
            text = self.front + text
        if self.words is not None:
            return self.words(text)
        return [text] if self.cut is None else [text[start:end] for start, end in self.cut(text)]

    def traced(self, text: Traced, *, first: bool) -> list[Traced]:
        if self.spaces:
            text = Traced(text.text.replace(" ", self.spaces), text.spans)
        if self.front and not text.text.startswith(self.front) and (first or not self.first_alone):
            text = text.before(self.front)
        return [text] if self.cut is None else [text.part(start, end) for start, end in self.cut(text.text)]


def splitters(saved: Any) -> list[Splitter]:
    """The stages of a saved pre-tokenizer, none for null. UserError for a kind that is not supported."""
    if saved is None:
        return []
    kind = saved.get("type") if isinstance(saved, Mapping) else None
    if kind == "Sequence":
        parts = saved["pretokenizers"]
        if len(parts) > MOST_STAGES:
            raise UserError(
                f"a tokenizer with {len(parts)} pre_tokenizers is not supported; {MOST_STAGES} are the most"
            )
        stages = [one for part in parts for one in splitters(part)]
        if any(one.spelled for one in stages[:-1]):
            raise UserError("a tokenizer whose ByteLevel is not its last pre_tokenizer is not supported")
        return stages
    if kind not in _KINDS:
        raise UserError(f"the pre_tokenizer {str(kind)[:40]!r} of a tokenizer is not supported")
    return [_KINDS[kind](saved)]


def _byte_level(saved: Mapping[str, Any]) -> Splitter:
    front = " " if saved.get("add_prefix_space", True) else ""
    if not saved.get("use_regex", True):
        return Splitter(front=front, spelled=True)
    pattern = compiled(GPT2)
    return Splitter(front=front, cut=_spans_of(pattern), words=pattern.findall, spelled=True)


def _spans_of(pattern: re.Pattern[str]) -> Callable[[str], list[Span]]:
    return lambda text: [one.span() for one in pattern.finditer(text)]


def _split(saved: Mapping[str, Any]) -> Splitter:
    behaviour, invert = saved["behavior"], bool(saved.get("invert", False))
    if behaviour not in BEHAVIOURS:
        raise UserError(f"the behavior {str(behaviour)[:40]!r} of a pre_tokenizer is not supported")
    return Splitter(cut=_cutting(pattern_of(saved["pattern"]), behaviour, invert=invert))


def _cutting(pattern: re.Pattern[str], behaviour: str, *, invert: bool) -> Callable[[str], list[Span]]:
    def cut(text: str) -> list[Span]:
        pieces: list[tuple[int, int, bool]] = []
        at = 0
        for one in pattern.finditer(text):
            start, end = one.span()
            if start == end:
                continue
            if start > at:
                pieces.append((at, start, False))
            pieces.append((start, end, True))
            at = end
        if at < len(text):
            pieces.append((at, len(text), False))
        return _joined([(a, b, match != invert) for a, b, match in pieces], behaviour)

    return cut


def _joined(pieces: list[tuple[int, int, bool]], behaviour: str) -> list[Span]:
    """What becomes of the matches among the pieces."""
    if behaviour == "Removed":
        return [(a, b) for a, b, match in pieces if not match]
    if behaviour == "Isolated":
        return [(a, b) for a, b, _ in pieces]
    found: list[Span] = []
    before: bool | None = None
    if behaviour == "MergedWithNext":
        for a, b, match in reversed(pieces):
            if match and before is False:
                found[-1] = (a, found[-1][1])
            else:
                found.append((a, b))
            before = match
        return found[::-1]
    for a, b, match in pieces:
        merges = match == before if behaviour == "Contiguous" else match and before is False
        if merges and found:
            found[-1] = (found[-1][0], b)
        else:
            found.append((a, b))
        before = match
    return found


def _digits(saved: Mapping[str, Any]) -> Splitter:
    ranges = "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in class_of("NUMERIC").ranges())
    behaviour = "Isolated" if saved.get("individual_digits", False) else "Contiguous"
    pattern = re.compile(f"[{ranges}]")
    whole = re.compile(f"[{ranges}]|[^{ranges}]+" if behaviour == "Isolated" else f"[{ranges}]+|[^{ranges}]+")
    return Splitter(cut=_cutting(pattern, behaviour, invert=False), words=whole.findall)


def _metaspace(saved: Mapping[str, Any]) -> Splitter:
    mark = str(saved.get("replacement", "▁"))
    scheme = saved.get("prepend_scheme", "always" if saved.get("add_prefix_space", True) else "never")
    if scheme not in ("always", "never", "first"):
        raise UserError(f"the prepend_scheme {str(scheme)[:40]!r} of a tokenizer is not supported")
    cut = _cutting(re.compile(re.escape(mark)), "MergedWithNext", invert=False) if saved.get("split", True) else None
    return Splitter(front="" if scheme == "never" else mark, first_alone=scheme == "first", spaces=mark, cut=cut)


def _of_pattern(pattern: str, behaviour: str, *, invert: bool = False) -> Splitter:
    return Splitter(cut=_cutting(compiled(pattern), behaviour, invert=invert))


def _bert(saved: Mapping[str, Any]) -> Splitter:
    """White space goes, then each punctuation mark is a word."""
    ranges = "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in class_of("BERT_PUNCTUATION").ranges())
    pattern = re.compile(f"[{ranges}]|[^{SPACES}{ranges}]+")
    return Splitter(cut=_spans_of(pattern), words=pattern.findall)


def _punctuation(saved: Mapping[str, Any]) -> Splitter:
    ranges = "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in class_of("PUNCTUATION").ranges())
    return Splitter(cut=_cutting(re.compile(f"[{ranges}]"), str(saved.get("behavior", "Isolated")), invert=False))


_KINDS: dict[str, Callable[[Mapping[str, Any]], Splitter]] = {
    "ByteLevel": _byte_level,
    "Split": _split,
    "Digits": _digits,
    "Metaspace": _metaspace,
    "BertPreTokenizer": _bert,
    "Punctuation": _punctuation,
    "Whitespace": lambda saved: _of_pattern(r"\w+|[^\w\s]+", "Removed", invert=True),
    "WhitespaceSplit": lambda saved: _of_pattern(r"\s", "Removed"),
    "CharDelimiterSplit": lambda saved: _of_pattern(re.escape(str(saved["delimiter"])), "Removed"),
}
