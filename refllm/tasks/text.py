"""A text that language models learn: read, cut and made tokens of once, however many of them there are."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from refllm.data.corpus import Corpus, Split, python_reference, read_text, split, spread
from refllm.data.part import ALL, Part, part_of, read_part
from refllm.errors import UserError
from refllm.metrics import bits_per_character, bits_per_token
from refllm.tokenizers import Tokenizer, character_starts, encode_long, gives_back, unknown_share

COUNTED = 4_000_000  # characters or tokens at the end of the training part that the n-gram models count, at most
LEARNT_FROM = 5_000_000  # characters that a tokenizer is learnt from, at most


@dataclass(frozen=True)
class HeldOut:
    """A text that a model is measured on, and its tokens."""

    text: str
    tokenizer: Tokenizer

    @cached_property
    def tokens(self) -> Any:
        return encode_long(self.tokenizer, self.text)

    @cached_property
    def is_whole(self) -> bool:
        return gives_back(self.tokenizer, self.tokens, self.text)

    def measures(self, nll: float, spans: Sequence[tuple[int, int]] | None = None) -> dict[str, float]:
        """Of the tokens, or of those in spans alone: loss per token in nats, and bits per character; bits per token and
        the share of unknown ones where the tokens do not give the text back: the bits would then mean too little."""
        parts = [self.tokens] if spans is None else [self.tokens[start:end] for start, end in spans]
        count = sum(map(len, parts))
        loss = {"val_loss": nll / count}
        if self.is_whole:
            if spans is None:
                return {**loss, "val_bpc": bits_per_character(nll, len(self.text))}
            return {**loss, "val_bpc": bits_per_character(nll, sum(b - a for a, b in self.characters(spans)))}
        unknown = sum(len(part) * unknown_share(self.tokenizer, part) for part in parts)
        return {**loss, "val_bpt": bits_per_token(nll, count), "val_unknown": unknown / count}

    def characters(self, spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Where the characters stand that begin in these spans of the tokens, if they give the text back."""
        return [(int(self._starts[start]), int(self._starts[end])) for start, end in spans]

    @cached_property
    def _starts(self) -> Any:
        return character_starts(self.tokenizer, self.tokens)


@dataclass(frozen=True)
class About:
    """What is to be known of a text that was read and cut in two: its name and SHA-256, the characters to learn from
    and held out, those left out, and how many of both are read if there is no time for all."""

    name: str
    digest: str
    characters: int
    held_out: int
    removed: int
    part: Part
    read: int
    held_out_read: int

    def introduced(self, tokenizer: Tokenizer) -> str:
        """The text and its split, in a line; further ones on what was left out, on what is read of it, and on tokens
        learnt from a part."""
        line = f"{self.name}: {self.characters:,} characters to learn from, {self.held_out:,} held out"
        if self.removed:
            line += f"\n           ({self.removed:,} characters left out that the held-out part repeats)"
        if not self.part.is_all:
            line += (
                f"\n           (in so short a time {self.read:,} and {self.held_out_read:,} of them are read, evenly "
                "spread)"
            )
        if self.characters > LEARNT_FROM and tokenizer.kind != "character":
            line += f"\n           (the tokens were learnt from {LEARNT_FROM:,} of the characters, evenly spread)"
        return line

    def described(self) -> dict[str, Any]:
        """What tells the text and the part of it from others, ready for JSON."""
        return {"text_sha256": self.digest, **({} if self.part.is_all else {"part": asdict(self.part)})}


@dataclass(frozen=True)
class ReadText:
    """The two parts of a text, or what of them there is time to read; and the end of all that there is to learn from,
    which the n-gram models count."""

    about: About
    train: str
    held_out: str
    end: str

    @classmethod
    def of(cls, corpus: Corpus, parts: Split, part: Part = ALL) -> ReadText:
        read = read_part(parts, part)
        about = About(
            corpus.name, digest_of(corpus.text), len(parts.train), len(parts.validation), parts.removed, part,
            len(read.train), len(read.validation),
        )  # fmt: skip
        return cls(about, read.train, read.validation, parts.train[-COUNTED:])

    @classmethod
    def whole(cls, data: list[str], *, border: str = "") -> ReadText:
        """All of the user's files, or of the text that every Python carries."""
        corpus = read_corpus(data, border=border)
        return cls.of(corpus, split(corpus))

    @classmethod
    def again(cls, description: dict[str, Any], *, border: str = "") -> ReadText:
        """The text of a run that is gone on with, and the part that it read.

        Raises: UserError if it is another text.
        """
        corpus = read_corpus(description["data"], border=border)
        if digest_of(corpus.text) != description["text_sha256"]:
            raise UserError(f"{corpus.name} is not the text that the run began with; resume with the same")
        return cls.of(corpus, split(corpus), part_of(description))


@dataclass(frozen=True)
class LearntText:
    """The tokens of a text's training part, the part held out, and what is to be known of the text beside them: the
    training part itself, which may be large, is not kept but for its end."""

    about: About
    tokens: Any
    held_out: HeldOut
    end: str
    alphabet: str

    @classmethod
    def of(cls, text: ReadText, tokenizer: Tokenizer) -> LearntText:
        return cls(
            text.about, encode_long(tokenizer, text.train), HeldOut(text.held_out, tokenizer), text.end,
            "".join(sorted(set(text.train) | set(text.held_out) | set(text.end))),
        )  # fmt: skip


def digest_of(text: str) -> str:
    """The SHA-256 of a text in UTF-8, a piece at a time."""
    found = hashlib.sha256()
    for start in range(0, len(text), 1 << 20):
        found.update(text[start : start + (1 << 20)].encode())
    return found.hexdigest()


def read_corpus(data: list[str], *, border: str = "") -> Corpus:
    """The user's files, with `border` between two of them, or the text that every Python carries."""
    return read_text(data, border=border) if data else python_reference()


def learnable(text: str) -> str:
    """What of a text a tokenizer is learnt from: all, or of a large one a part that is evenly spread over it."""
    return spread(text, most=LEARNT_FROM)
