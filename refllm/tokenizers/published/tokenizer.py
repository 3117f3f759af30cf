"""A published tokenizer: ids of a text, where each token stands in it, and the text of ids."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from refllm.errors import MissingTokensError, UserError
from refllm.tokenizers.checks import checked_ids, refuse_surrogates
from refllm.tokenizers.published.added import Added, added_tokens, cutter
from refllm.tokenizers.published.decoders import bytes_of_spelling, decoders
from refllm.tokenizers.published.files import NAMES, described
from refllm.tokenizers.published.models import BytePairs, Piece, model_of
from refllm.tokenizers.published.normalisers import normalisers
from refllm.tokenizers.published.processors import processors
from refllm.tokenizers.published.spelling import spelled, widths
from refllm.tokenizers.published.splitters import splitters
from refllm.tokenizers.published.traced_text import Span, Traced
from refllm.tokenizers.vocabulary import SpecialIds

MOST_KNOWN = 1 << 18  # words that are remembered
LONGEST_KNOWN = 256  # characters of one
LONG = 64  # characters: a longer word is cut where no merge reaches across
LOST = "\ufffd"
ROLES = (("[PAD]", "<pad>"), ("[UNK]", "<unk>"), ("[CLS]", "<s>"), ("[SEP]", "</s>"), ("[MASK]", "<mask>"))


class Encoded(NamedTuple):
    """Ids, and for each the place of its first character in the text and that after its last."""

    ids: NDArray[np.int64]
    offsets: list[Span]


class PublishedTokenizer:
    """The tokenizer of files as they are published.

    Raises: UserError for files that are damaged, or of a kind that is not supported.
    """

    kind: ClassVar[str] = "published"

    def __init__(self, files: Mapping[str, str], *, size: int | None = None) -> None:
        self.files = {name: text for name, text in files.items() if name in NAMES}
        try:
            self._build(described(self.files))
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"the tokenizer's files lack something or are damaged ({error!r}); get them again"
            ) from None
        self.size = max(self.tokens, default=0) + 1 if size is None else size
        if max(self.tokens, default=0) >= self.size:
            raise UserError(
                f"the tokenizer has an id {max(self.tokens)}, the model a vocabulary of {self.size}; get the files "
                "of one and the same model"
            )

    def _build(self, saved: Mapping[str, Any]) -> None:
        self.model = model_of(saved["model"])
        self.normalisers = normalisers(saved.get("normalizer"))
        self.splitters = splitters(saved.get("pre_tokenizer"))
        added = added_tokens(saved.get("added_tokens") or [])
        self.special_tokens = {token.id for token in added if token.special}
        self.ids = {**self.model.vocabulary, **{token.content: token.id for token in added}}
        self.tokens = {i: token for token, i in self.model.vocabulary.items()}
        self.tokens.update(
            {token.id: self._normalised(token.content) if token.normalised else token.content for token in added}
        )
        self.processors = processors(saved.get("post_processor"), self.ids)
        self.decoders = decoders(saved.get("decoder"))
        self._has_decoder = saved.get("decoder") is not None
        self._cut_before, self._cut_after = self._cutters(added)
        self._spelled = bool(self.splitters) and self.splitters[-1].spelled
        self._known: dict[str, tuple[int, ...]] = {}
        self._placed: dict[str, list[Piece]] = {}
        self._borders = None if self._spelled else _borders(self.model)

    def _cutters(self, added: list[Added]) -> tuple[Callable[[str], Any] | None, Callable[[str], Any] | None]:
        before = cutter([token for token in added if not token.normalised], self._normalised)
        return before, cutter([token for token in added if token.normalised], self._normalised)

    # --- from text to ids --------------------------------------------------------------------------------------------

    def encode(self, text: str) -> NDArray[np.int64]:
        """The ids of a text; added tokens that stand in it are found, none are put around it.

        Raises: UserError if the text holds a lone surrogate.
        """
        refuse_surrogates(text)
        ids: list[int] = []
        for part, added, start in self._parts(text):
            if added is not None:
                ids.append(added)
                continue
            self._encode_plain(self._normalised(part), ids, first=start == 0)
        return np.array(ids, np.int64)

    def _parts(self, text: str) -> Iterator[tuple[str, int | None, int]]:
        if self._cut_before is None:
            if text:
                yield text, None, 0
            return
        for start, end, added in self._cut_before(text):
            yield text[start:end], added, start

    def _encode_plain(self, text: str, ids: list[int], *, first: bool) -> None:
        cuts = [(0, len(text), None)] if self._cut_after is None else self._cut_after(text)
        for start, end, added in cuts:
            if added is not None:
                ids.append(added)
                continue
            words = [text[start:end]] if start < end else []
            for splitter in self.splitters:
                words = [
                    piece
                    for n, word in enumerate(words)
                    for piece in splitter.plain(word, first=first and not start + n)
                ]
            if self._borders is not None:
                words = [
                    piece for word in words for piece in (self._borders.split(word) if len(word) > LONG else (word,))
                ]
            known = self._known
            for word in words:
                found = known.get(word)
                if found is None:
                    if not word:
                        continue
                    found = tuple(i for i, _, _ in self._pieces(word))
                    if len(word) <= LONGEST_KNOWN:
                        if len(known) >= MOST_KNOWN:
                            known.clear()
                        known[word] = found
                ids += found

    def _pieces(self, word: str) -> list[Piece]:
        return self.model.pieces(spelled(word) if self._spelled else word)

    def _normalised(self, text: str) -> str:
        for one in self.normalisers:
            text = one.plain(text)
        return text

    def marked(self, text: str) -> NDArray[np.int64]:
        """The ids of a text with what its template puts around it."""
        ids = self.encode(text).tolist()
        for one in self.processors:
            ids = [*one.before, *ids, *one.after]
        return np.array(ids, np.int64)

    def begun(self, text: str) -> NDArray[np.int64]:
        """The ids of a text that is to be gone on with: after what stands before a text, without what ends it."""
        ids = self.encode(text).tolist()
        for one in self.processors:
            ids = [*one.before, *ids]
        return np.array(ids, np.int64)

    def encode_with_offsets(self, text: str, *, marked: bool = False) -> Encoded:
        """The ids, and where each stands in the text; what is put around it stands at (0, 0)."""
        refuse_surrogates(text)
        found: list[tuple[int, Span]] = []
        for part, added, start in self._parts(text):
            if added is not None:
                found.append((added, (start, start + len(part))))
                continue
            traced = Traced.of(part, start)
            for one in self.normalisers:
                traced = one.traced(traced)
            self._encode_traced(traced, found, first=start == 0)
        for processor in self.processors:
            if processor.trims:
                found = [
                    (i, processor.trimmed(self.tokens.get(i, ""), span, first=n == 0))
                    for n, (i, span) in enumerate(found)
                ]
            if marked:
                found = [*((i, (0, 0)) for i in processor.before), *found, *((i, (0, 0)) for i in processor.after)]
        return Encoded(np.array([i for i, _ in found], np.int64), [span for _, span in found])

    def _encode_traced(self, text: Traced, found: list[tuple[int, Span]], *, first: bool) -> None:
        cuts = [(0, len(text.text), None)] if self._cut_after is None else self._cut_after(text.text)
        for start, end, added in cuts:
            if added is not None:
                found.append((added, text.span(start, end)))
                continue
            words = [text.part(start, end)] if start < end else []
            for splitter in self.splitters:
                words = [
                    piece
                    for n, word in enumerate(words)
                    for piece in splitter.traced(word, first=first and not start + n)
                ]
            for word in words:
                if word.text:
                    found += [(i, word.span(a, b)) for i, a, b in self._placed_pieces(word.text)]

    def _placed_pieces(self, word: str) -> list[Piece]:
        """The pieces of a word by its characters, also where the model cuts bytes."""
        if not self._spelled:
            return self._pieces(word)
        of = widths(word)
        return [(i, of[start], of[end - 1] + 1) for i, start, end in self._pieces(word)]

    # --- from ids to text --------------------------------------------------------------------------------------------

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, without the special ones.

        Raises: UserError if an id is not in the vocabulary.
        """
        return self._text(checked_ids(ids, size=self.size).tolist())

    def _text(self, ids: Iterable[int]) -> str:
        tokens = [self.tokens[i] for i in ids if i in self.tokens and i not in self.special_tokens]
        if not self._has_decoder:
            return " ".join(tokens)
        for one in self.decoders:
            tokens = one(tokens)
        return "".join(tokens)

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of each id as soon as its characters are whole; the joined pieces are decode(ids)."""
        window: list[int] = []  # ids whose text was given, then those that wait
        given = ""  # the text of the first of them
        for one in ids:
            window.append(int(checked_ids([one], size=self.size)[0]))
            text = self._text(window)
            if text.endswith(LOST) or len(text) <= len(given):
                yield ""
                continue
            yield text[len(given) :]
            alone = self._text(window[-1:])
            if alone and LOST not in alone:  # else what comes would be another text without those before it
                window, text = window[-1:], alone
            given = text
        yield self._text(window)[len(given) :]

    def characters(self, ids: Iterable[int]) -> list[int]:
        """How many characters begin in each token."""
        if not self._spelled:
            return [len(piece) for piece in self.stream(ids)][:-1]
        spelling = {i: bytes_of_spelling(token) for i, token in self.tokens.items() if i not in self.special_tokens}
        return [sum(byte & 0xC0 != 0x80 for byte in spelling.get(int(i), b"")) for i in ids]

    # --- what others ask ---------------------------------------------------------------------------------------------

    @cached_property
    def special(self) -> SpecialIds:
        """The special tokens by what they are for. MissingTokensError where there are not all."""
        found = [next((self.ids[name] for name in names if name in self.ids), None) for names in ROLES]
        if any(i is None for i in found):
            missing = " and ".join(names[0] for names, i in zip(ROLES, found, strict=True) if i is None)
            raise MissingTokensError(f"the tokenizer has no {missing}; get one that has, or give another model")
        return SpecialIds(*(i for i in found if i is not None))

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The token of each id, empty where there is none."""
        return tuple(self.tokens.get(i, "") for i in range(self.size))

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "files": self.files, "size": self.size}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> PublishedTokenizer:
        """The inverse of to_json.

        Raises: UserError if the object is not what to_json writes.
        """
        files = saved.get("files")
        plain = isinstance(files, dict) and all(isinstance(text, str) for text in files.values())
        if set(saved) != {"kind", "files", "size"} or not plain or type(saved["size"]) is not int:
            raise UserError(
                "a saved published tokenizer needs `kind`, `files` and a whole number `size`; train it again"
            )
        return cls(saved["files"], size=saved["size"])


def _borders(model: Any) -> re.Pattern[str] | None:
    """Where a word that may be a whole text can be cut: before a mark of a space that no merge joins
    with the character in front of it. What is cut there and known is looked up."""
    if (
        not isinstance(model, BytePairs)
        or model.prefix
        or model.suffix
        or model.ignore_merges
        or "▁" not in model.vocabulary
    ):
        return None
    tokens = {i: token for token, i in model.vocabulary.items()}
    joined = {tokens[left][-1] for left, right in model.merges if tokens[right].startswith("▁") and tokens[left]}
    return re.compile(f"(?<=[^▁{''.join(map(re.escape, sorted(joined - {'▁'})))}])(?=▁)")
