"""Text whose characters remember what they come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Span = tuple[int, int]


@dataclass(frozen=True)
class Traced:
    """A text, and for each of its characters which characters of the original it stands for."""

    text: str
    spans: tuple[Span, ...]

    @classmethod
    def of(cls, text: str, start: int = 0) -> Traced:
        return cls(text, tuple((i, i + 1) for i in range(start, start + len(text))))

    def part(self, start: int, end: int) -> Traced:
        return Traced(self.text[start:end], self.spans[start:end])

    def changed(self, changes: Iterable[tuple[str, int]]) -> Traced:
        """The text that the changes make: a character and 0 if it takes the place of the next one, 1 if it is new and
        belongs to the one before, or -n if it takes the place of the next one and n more go after it.
        """
        characters, spans, at = [], [], 0
        for character, change in changes:
            characters.append(character)
            spans.append((self.spans[at - 1] if at else (0, 0)) if change > 0 else self.spans[at])
            at += 1 - change if change <= 0 else 0
        return Traced("".join(characters), tuple(spans))

    def kept(self, keep: Iterable[bool]) -> Traced:
        """Without the characters of which that is false."""
        places = [i for i, one in enumerate(keep) if one]
        return Traced("".join(self.text[i] for i in places), tuple(self.spans[i] for i in places))

    def mapped(self, table: Iterable[str]) -> Traced:
        """Each character replaced by a text that stands for what it stood for."""
        pairs = list(zip(table, self.spans, strict=True))
        spans = tuple(span for text, span in pairs for _ in text)
        return Traced("".join(text for text, _ in pairs), spans)

    def before(self, text: str) -> Traced:
        """With a text in front, which stands for what the first character stands for."""
        return Traced(text + self.text, (self.spans[0],) * len(text) + self.spans) if self.text else self

    def replaced(self, matches: Iterable[Span], content: str) -> Traced:
        """The matches replaced; the new text stands for the last character of what it replaces."""
        texts: list[str] = []
        spans: list[Span] = []
        at = 0
        for start, end in matches:
            texts += [self.text[at:start], content]
            stood = self.spans[end - 1] if end else (0, 0)
            spans += [*self.spans[at:start], *[stood] * len(content)]
            at = end
        return Traced("".join(texts) + self.text[at:], tuple(spans) + self.spans[at:])

    def span(self, start: int, end: int) -> Span:
        """What a part of the text stands for."""
        within = self.spans[start:end]
        return (within[0][0], within[-1][1]) if within else (0, 0)
