"""Documents and their sentences, and the pairs of them that BERT learns from. (NSP, SOP)"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refllm.errors import UserError
from refllm.tokenizers import Tokenizer

Ids = NDArray[np.int64]
Document = list[Ids]  # its sentences

IN_ORDER, OTHERWISE = 0, 1  # the classes of a pair

BORDER = "\0"  # between two files; no text that was read has it
FILE_BORDER = f"\n{BORDER}\n\n"  # a paragraph of its own, which stays where others are taken out

RULE = re.compile(r"(?P<sign>[=\-~^*\"#`+])(?P=sign){2,}[ \t]*")  # the line under a heading
MARKDOWN = re.compile(r"#{1,6} +(?P<title>\S.*)")
BLANK = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")
CHAPTER = re.compile(r"\n(?:[^\S\n]*\n){3,}")
DECORATION = re.compile(r"^[^\S\n]*(?:[^\w\s][^\S\n]*){4,}$", re.MULTILINE)  # rules and the borders of tables
END = re.compile(
    r"""
      [.!?…]+ ["'”’»)\]]* \s+    # the marks of a sentence's end, with what closes after them, then white space
    | [。！？]+ [”’」』）]* \s*    # the Chinese marks need none
    """,
    re.VERBOSE,
)


def split_documents(text: str) -> list[list[str]]:
    """The documents of a text, each as its sentences; those of a single sentence make no pair and are left out.

    A document begins at a heading (a line with a rule under it, or a Markdown line that begins with #) and after three
    blank lines. Where a text has none of these, each of its paragraphs is a document. A line of four or more signs
    without a letter or digit, such as a rule or the border of a table, is not a sentence and is left out. Files with
    FILE_BORDER between them are texts of their own.
    """
    return [document for file in text.split(BORDER) for document in _documents(file)]


def _documents(text: str) -> list[list[str]]:
    parts = [part for chapter in CHAPTER.split(text) for part in sections(chapter)]
    if len(parts) == 1:
        parts = BLANK.split(text)
    parts = [DECORATION.sub("", part) for part in parts]
    documents = [[s for paragraph in BLANK.split(part) for s in sentences(paragraph)] for part in parts]
    return [document for document in documents if len(document) > 1]


def sections(text: str) -> list[str]:
    """The text cut before every heading, which becomes a paragraph of its own without its signs."""
    lines = text.split("\n")
    starts = {0}
    for place, line in enumerate(lines):
        if RULE.fullmatch(line) and place > 0 and lines[place - 1].strip():
            starts.add(place - 1)
            lines[place] = ""
        elif heading := MARKDOWN.fullmatch(line):
            starts.add(place)
            lines[place] = f"{heading['title']}\n"
    cuts = [*sorted(starts), len(lines)]
    bodies = ["\n".join(lines[first:last]) for first, last in pairwise(cuts)]
    return [body for body in bodies if body.strip()]


def sentences(paragraph: str) -> list[str]:
    """The sentences of a paragraph, white space within them made a single space.

    A sentence ends at a full stop, exclamation or question mark, unless the next word begins with a small letter. So
    "e.g. the" is not cut, "e.g. Python" is: there is no list of abbreviations.
    """
    return [" ".join(piece.split()) for piece in _pieces(paragraph) if piece.strip()]


def _pieces(paragraph: str) -> Iterator[str]:
    start = 0
    for end in END.finditer(paragraph):
        following = paragraph[end.end() :].lstrip("\"'“‘«([")[:1]
        if not following.islower():
            yield paragraph[start : end.end()]
            start = end.end()
    yield paragraph[start:]


def encoded(documents: Sequence[Sequence[str]], tokenizer: Tokenizer) -> list[Document]:
    """The documents as ids; a sentence without a token, and a document that then has a single one, are left out."""
    ids = [[a for a in map(tokenizer.encode, document) if len(a)] for document in documents]
    return [document for document in ids if len(document) > 1]


class Pair(NamedTuple):
    """Two segments; label 0: the second follows the first in a document, 1: it does not."""

    first: Ids
    second: Ids
    label: int


def next_sentence_pairs(documents: Sequence[Document], *, room: int, generator: np.random.Generator) -> list[Pair]:
    """NSP: half of the pairs are a segment and what follows it, half a segment and one of ANOTHER document

    The segments come from `stretches`. The strange segment begins with a sentence and has exactly as many tokens as the
    true one, so that lengths tell nothing (they would: a true continuation fills the room, a strange one need not).
    Source:  Devlin et al. 2019 sec. 3.1 and A.2; documents 000 sec. 3.2 (erratum E24: not all pairs are consecutive).
    Raises:  UserError for fewer than two documents, or no room for a token of each segment.
    """
    _require(documents, room, least=2, what="sentence pairs of two documents")
    strangers = _Strangers(documents)
    pairs: list[Pair] = []
    for number, document in enumerate(documents):
        for first, second in stretches(document, room=room, generator=generator):
            if generator.random() < 0.5:
                pairs.append(Pair(first, strangers.draw(number, len(second), generator), OTHERWISE))
            else:
                pairs.append(Pair(first, second, IN_ORDER))
    return pairs


def sentence_order_pairs(documents: Sequence[Document], *, room: int, generator: np.random.Generator) -> list[Pair]:
    """SOP: two segments that follow each other, half of them swapped

    Both orders show the same segments: topic says nothing, as it does in NSP.
    Source:  Lan et al. 2020 (arXiv:1909.11942) sec. 3.1; documents 004 sec. 2.3.
    Raises:  UserError if there is no document, or no room for a token of each segment.
    """
    _require(documents, room, least=1, what="sentence pairs")
    pairs: list[Pair] = []
    for document in documents:
        for first, second in stretches(document, room=room, generator=generator):
            swapped = generator.random() < 0.5
            pairs.append(Pair(second, first, OTHERWISE) if swapped else Pair(first, second, IN_ORDER))
    return pairs


PAIRINGS = {"next": next_sentence_pairs, "order": sentence_order_pairs}


def _require(documents: Sequence[Document], room: int, *, least: int, what: str) -> None:
    if room < 2:
        raise UserError(f"{what} need room for 2 tokens beside the special ones, got {room}; raise the context to 5")
    if len(documents) < least:
        raise UserError(
            f"the text has {len(documents)} documents of two sentences or more, and {what} need {least}; "
            "give more text, with headings or blank lines between its documents"
        )


def stretches(document: Document, *, room: int, generator: np.random.Generator) -> Iterator[tuple[Ids, Ids]]:
    """A document in stretches of whole sentences that fill the room, each cut in two at a random border.

    The last one reaches back until it fills the room too; only a document shorter than the room gives a shorter pair.
    Of what is too much goes what is far from the border, where the two segments tell the most about each other.
    """
    lengths = [len(sentence) for sentence in document]
    end = 0
    while end < len(document):
        start = end
        while end < len(document) and (sum(lengths[start:end]) < room or end - start < 2):
            end += 1
        while start > 0 and (sum(lengths[start:end]) < room or end - start < 2):
            start -= 1
        border = int(generator.integers(start + 1, end))
        first, second = np.concatenate(document[start:border]), np.concatenate(document[border:end])
        left, right = fitting(len(first), len(second), room=room)
        yield first[len(first) - left :], second[:right]


class _Strangers:
    """Segments of other documents, of a given length."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.texts = [np.concatenate(document) for document in documents]
        self.starts = [np.cumsum([0, *map(len, document[:-1])]) for document in documents]
        sizes = np.array([len(text) for text in self.texts])
        self.order = np.argsort(-sizes, kind="stable")  # the longest first: those that are long enough come first
        self.sizes = sizes[self.order]
        self.rank = np.argsort(self.order, kind="stable")

    def draw(self, number: int, length: int, generator: np.random.Generator) -> Ids:
        """`length` tokens from the beginning of a sentence of any document but this one that has so many; where none
        has, the longest other document."""
        enough, own = int(np.searchsorted(-self.sizes, -length, side="right")), int(self.rank[number])
        choices = enough - (own < enough)
        place = int(generator.integers(choices)) if choices else 0
        other = int(self.order[place + (place >= own)])
        text, starts = self.texts[other], self.starts[other]
        possible = int(np.searchsorted(starts, max(0, len(text) - length), side="right"))
        begin = int(starts[generator.integers(possible)])
        return text[begin : begin + length]


def fitting(first: int, second: int, *, room: int) -> tuple[int, int]:
    """The lengths that two segments keep in a room: the longer one gives way, and at most until they are equal."""
    if first + second <= room:
        return first, second
    right = min(second, max(room // 2, room - first))
    return room - right, right


def marked(
    first: NDArray[Any], second: NDArray[Any] | None, *, cls: int, sep: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[CLS] first [SEP], or [CLS] first [SEP] second [SEP]: the ids, and the segment (0 or 1) of each

    Source:  Devlin et al. 2019 sec. 3 and fig. 2; documents 000 sec. 4.2.
    """
    parts = [[cls], first, [sep]] if second is None else [[cls], first, [sep], second, [sep]]
    ids = np.concatenate([np.asarray(part, np.int64) for part in parts])
    return ids, (np.arange(len(ids)) >= len(first) + 2).astype(np.int64)
