"""What the tokenizers with a list of words share: the special tokens, the list's rules, and how text is cut into words.

The rules of cutting are those of BERT's published tokenizer, so that its vocabulary files give its ids.
Source: Devlin et al. 2019, code; documents 001 ch. 3 sec. 2.2, 004 sec. 3.1 (DATA).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from refllm.errors import UserError
from refllm.tokenizers.checks import refuse_surrogates

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class SpecialIds(NamedTuple):
    """The ids that stand for no word of a text; 0 … 4 in a vocabulary that was trained here."""

    pad: int
    unknown: int
    cls: int
    sep: int
    mask: int


def special_ids(vocabulary: tuple[str, ...]) -> SpecialIds:
    """Where the special tokens stand in a vocabulary.

    Raises: UserError if one is missing.
    """
    places = {token: place for place, token in enumerate(vocabulary)}
    if missing := [token for token in SPECIAL if token not in places]:
        raise UserError(f"the vocabulary has no {', '.join(missing)}; add a line for each special token, or train anew")
    return SpecialIds(*(places[token] for token in SPECIAL))


def refuse_damaged(vocabulary: tuple[str, ...]) -> None:
    """Raises: UserError unless the tokens are non-empty, different and Unicode, the special ones among them."""
    if len(set(vocabulary)) < len(vocabulary):
        seen: set[str] = set()
        twice = next(token for token in vocabulary if token in seen or seen.add(token))  # type: ignore[func-returns-value]
        raise UserError(f"the vocabulary holds {twice!r} twice; each token has one id: take one of them out")
    if "" in vocabulary:
        raise UserError(f"token {vocabulary.index('')} of the vocabulary is empty; take the empty line out")
    refuse_surrogates("".join(vocabulary))
    special_ids(vocabulary)


Listed = TypeVar("Listed")


def from_list(kind: type[Listed], saved: Mapping[str, Any]) -> Listed:
    """A tokenizer whose JSON is its kind, its `vocabulary` and `lower`.

    Raises: UserError if the object is anything else.
    """
    listed = set(saved) == {"kind", "vocabulary", "lower"} and isinstance(saved["vocabulary"], list)
    if not listed or type(saved["lower"]) is not bool or not all(isinstance(t, str) for t in saved["vocabulary"]):
        raise UserError(
            f"a saved tokenizer of kind {saved.get('kind')} needs a list of strings `vocabulary` and a boolean "
            "`lower`, nothing else; train it again"
        )
    return kind(vocabulary=tuple(saved["vocabulary"]), lower=saved["lower"])  # type: ignore[call-arg]


def words(text: str, *, lower: bool) -> list[str]:
    """The words of a text: cut at white space, each punctuation mark and each Chinese character by itself.

    Control characters, and U+FFFD, which stands for what could not be decoded, are dropped. `lower` also takes accents
    off: é is e, and Σ is σ wherever it stands. What is lost (case, accents, how much white space) does not come back.

    Raises: UserError if the text holds a lone surrogate.

    >>> words("Don't panic, 梨子!", lower=True)
    ['don', "'", 't', 'panic', ',', '梨', '子', '!']
    """
    refuse_surrogates(text)
    text = text.translate(_CLEANED)
    if lower:
        decomposed = unicodedata.normalize("NFD", text)
        text = decomposed.translate(_LOWERED)
    return text.translate(_SEPARATED).split()


class _Table(dict[int, str]):
    """For str.translate: the rule is asked once a character."""

    def __init__(self, rule: Any) -> None:
        super().__init__()
        self.rule = rule

    def __missing__(self, code: int) -> str:
        self[code] = self.rule(chr(code))
        return self[code]


def _cleaned(character: str) -> str:
    category = unicodedata.category(character)
    if character in "\t\n\r" or category.startswith("Z"):
        return " "
    if character == "\ufffd" or category in ("Cc", "Cf", "Co"):
        return ""
    return f" {character} " if is_chinese(character) else character


def _lowered(character: str) -> str:
    return "" if unicodedata.category(character) == "Mn" else character.lower()


def _separated(character: str) -> str:
    return f" {character} " if is_punctuation(character) else character


_CLEANED, _LOWERED, _SEPARATED = _Table(_cleaned), _Table(_lowered), _Table(_separated)


def is_punctuation(character: str) -> bool:
    """Unicode's punctuation, and all of ASCII that is neither letter, digit nor space: $ + < = > ^ ` | ~ too."""
    return (character.isascii() and character.isprintable() and not character.isalnum() and character != " ") or (
        unicodedata.category(character).startswith("P")
    )


def is_chinese(character: str) -> bool:
    """The blocks of Chinese characters, whose words have no spaces between them. Not kana, not Hangul."""
    code = ord(character)
    return any(first <= code <= last for first, last in _CHINESE)


_CHINESE = (
    (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F),
)  # fmt: skip
