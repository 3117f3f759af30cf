r"""Byte pairs that were learnt here as a tokenizer.json, which the library `tokenizers` opens with the same ids.

The rule that cuts a text into words is written in classes of Unicode: what \w, \d and \s of Python hold. Characters
that one of the two Unicode versions does not know yet may be cut otherwise there.
"""

from __future__ import annotations

import json
from typing import Any

from refllm.tokenizers.bpe import BYTES, LONGEST, BytePairTokenizer
from refllm.tokenizers.published.spelling import character_of_byte

SPACE = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
LETTER = r"(?:(?!\p{Nd})[\p{L}\p{N}])"  # numbers that are no decimal digits are letters to Python
NO_NEWLINE = SPACE.replace(r"\t-\r", r"\t\x0b-\r")
WORDS = (
    rf" ?{LETTER}{{1,{LONGEST}}}| ?\p{{Nd}}{{1,3}}| ?[^\p{{L}}\p{{N}}{SPACE}]{{1,{LONGEST}}}|\n{{1,{LONGEST}}}"
    rf"|[{NO_NEWLINE}]{{1,{LONGEST}}}(?![^{SPACE}])|[{NO_NEWLINE}]"
)


def tokenizer_json(tokenizer: BytePairTokenizer) -> str | None:
    """None where two of its tokens are the same bytes, joined from other parts: a published vocabulary has one id for
    each text."""
    characters = character_of_byte()
    tokens = [characters[byte] for byte in range(BYTES)]
    merges = []
    for left, right in tokenizer.merges:
        merges.append([tokens[left], tokens[right]])
        tokens.append(tokens[left] + tokens[right])
    if len(set(tokens)) < len(tokens):
        return None
    saved: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)}, "merges": merges,
        },
    }  # fmt: skip
    return json.dumps(saved, ensure_ascii=False, indent=1) + "\n"
