"""Writes refllm/tokenizers/published/unicode_classes.py: what the library `tokenizers` takes for a letter, a mark, a
punctuation mark ..., asked of the library itself, code point by code point. Run it beside an installed `tokenizers`.

    python scripts/unicode_classes.py > refllm/tokenizers/published/unicode_classes.py
"""

from __future__ import annotations

import argparse
import textwrap
import unicodedata
from collections.abc import Collection
from typing import Any, Literal

CHARACTERS = [chr(code) for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
CATEGORIES = ("L", "N", "M", "P", "S", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Nd", "W")
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
HEAD = '''"""Classes of characters as the library `tokenizers` has them, which are of several versions of Unicode.

The running Python may have another. Written by scripts/unicode_classes.py. A class is a list of numbers to the base 36:
again and again so many characters that are not in it, and so many that are.
"""

from __future__ import annotations

# fmt: off
'''


def coded(members: Collection[str]) -> str:
    """Runs of characters outside and inside."""
    inside, lengths = False, [0]
    known = set(members)
    for code in range(0x110000):
        if (chr(code) in known) != inside:
            inside = not inside
            lengths.append(0)
        lengths[-1] += 1
    if not inside:
        lengths.pop()
    return " ".join(based(n) for n in lengths)


def based(n: int) -> str:
    text = ""
    while True:
        n, digit = divmod(n, 36)
        text = DIGITS[digit] + text
        if not n:
            return text


def matching(pattern: str) -> list[str]:
    import tokenizers

    text = "".join(CHARACTERS)
    splitter = tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "removed")
    left: set[str] = set()
    for _, (start, end) in splitter.pre_tokenize_str(text):
        left.update(text[start:end])
    return [c for c in CHARACTERS if c not in left]


def of_bert() -> dict[str, list[str]]:
    """What its normaliser drops, takes for a space or for Chinese, strips as an accent; what it cuts at."""
    from tokenizers import normalizers, pre_tokenizers

    clean = normalizers.BertNormalizer(True, False, False, False)
    chinese = normalizers.BertNormalizer(False, True, False, False)
    strip = normalizers.BertNormalizer(False, False, True, False)
    cutter: Any = pre_tokenizers.BertPreTokenizer()
    return {
        "BERT_DROPPED": [c for c in CHARACTERS if clean.normalize_str(c) == ""],
        "BERT_SPACE": [c for c in CHARACTERS if clean.normalize_str(c) == " "],
        "BERT_CHINESE": [c for c in CHARACTERS if chinese.normalize_str(c) != c],
        "BERT_ACCENT": [c for c in CHARACTERS if strip.normalize_str(c) == ""],
        "BERT_PUNCTUATION": [c for c in CHARACTERS if len(cutter.pre_tokenize_str(f"a{c}b")) == 3],
        "ACCENT": [c for c in CHARACTERS if normalizers.StripAccents().normalize_str(c) == ""],
        "PUNCTUATION": [c for c in CHARACTERS if len(pre_tokenizers.Punctuation().pre_tokenize_str(f"a{c}b")) == 3],
        "NUMERIC": [c for c in CHARACTERS if len(pre_tokenizers.Digits().pre_tokenize_str(f"a{c}b")) == 3],
    }


def opaque() -> list[str]:
    """Characters that Python normalises, and the library, whose tables are older, does not."""
    from tokenizers import normalizers

    names: tuple[Literal["NFD", "NFKD"], ...] = ("NFD", "NFKD")
    forms = {name: getattr(normalizers, name)() for name in names}
    found = []
    for c in CHARACTERS:
        changed = any(forms[n].normalize_str(c) != unicodedata.normalize(n, c) for n in forms)
        moves = unicodedata.combining(c)
        for other in "\u0334\u0345":  # classes 1 and 240: what has one itself is moved by one of the two
            if moves and unicodedata.combining(other) != moves:
                text = "a" + (c + other if unicodedata.combining(other) < moves else other + c)
                changed |= forms["NFD"].normalize_str(text) != unicodedata.normalize("NFD", text)
        if changed:
            found.append(c)
    return found


def lowered() -> dict[str, str]:
    """What the library lowers and an older Python does not."""
    from tokenizers import normalizers

    lower = normalizers.Lowercase()
    return {c: lower.normalize_str(c) for c in CHARACTERS if lower.normalize_str(c) != c.lower()}


def main() -> None:
    about = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    about.parse_args()
    classes = {name: matching(r"\w" if name == "W" else rf"\p{{{name}}}") for name in CATEGORIES}
    print(HEAD)
    for name, members in {**classes, **of_bert(), "OPAQUE": opaque()}.items():
        lines = textwrap.wrap(coded(members), 112)
        print(f"{name} = (\n" + "\n".join(f'    "{line} "' for line in lines) + "\n)")
    pairs = " ".join(f"{ord(c):x}:{ord(low):x}" for c, low in lowered().items() if len(low) == 1)
    print("LOWERED = (\n" + "\n".join(f'    "{line} "' for line in textwrap.wrap(pairs, 112)) + "\n)")


if __name__ == "__main__":
    main()
