"""Tokenizers of the library `tokenizers` in the forms in use, learnt from a small text of many scripts, and texts."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

library: Any = pytest.importorskip("tokenizers")

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXT = [
    "The capital of France is Paris. The man is eating food; someone eats a meal! It's 1,234.56 dollars, isn't it?",
    "def f(x):\n    return x ** 2  # the square\n\n\tclass A:\r\n\r\n        pass   \n",
    "Die Größe der Äpfel überrascht; façade naïve coöperate Ångström İstanbul ſtraße ΣΊΣΥΦΟΣ ὈΔΥΣΣΕΎΣ",
    "中文分词是自然语言处理的基础。東京は日本の首都です。한국어는 아름답다.",
    "العربية لغة جميلة، ١٢٣٤ سطر. עברית שפה יפה. ภาษาไทยไม่มีช่องว่าง ๑๒๓ हिन्दी में लिखना १२३",
    "👩‍👩‍👧‍👦 family 🏳️‍🌈 flag 👍🏽 thumbs 🇩🇪 e\u0301 n\u0303o \u1e9b\u0323 ﬁne Ⅷ ½ ① ㌔ ﷺ",
    "a  b   c    d\u00a0e\u2003f\u3000g\u200bh\u00adi\ufeffj \u0000\u0007\u001b\u0085\u2028 x\x1cy",
    "The capital of the world is what the man says it is, and the food is the meal of the house. " * 3,
]
ROWS = [
    *TEXT,
    "", " ", "  ", "\n", "\r\n", "\r\n\r\n x", " leading", "trailing ", "  both  ", "\t\ttabs\t", "'S 'LL 'ſ don'T",
    "x" * 300, "ab" * 5000, "é" * 400, "e\u0301" * 300, "1234567890" * 50, "  " * 300, "\u0301" * 30,
    "<|end|>", "a<|end|>b", " <|end|> ", "<s>x</s>", "[MASK] is [UNK]", "the[MASK]", " [MASK]  two", "NEW new NEWs",
    "Hello world, this", "▁x ▁▁ y▁", "<0x41> <0xFF>", "\U000e0001\U0010ffff", "a\u0315\u0300\u05ae\u0300\u0315b",
    "한\u1112\u1161\u11ab", "\ud7a3\u11a8", "İI ıi", "ǅ ǈ", "ﬀﬁ", "\u0f77\u0f81", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "\u1e0a\u0323",
]  # fmt: skip


def random_texts(count: int, *, seed: int, length: int = 24) -> list[str]:
    """Texts of random characters: of all of Unicode, of a few scripts, and of what is often confused."""
    draw = random.Random(seed)
    pools = [
        [(0x20, 0x7E)],
        [(0x00, 0xFF)],
        [(0x00, 0x24F), (0x300, 0x36F), (0x370, 0x52F)],
        [(0x590, 0x6FF), (0x20, 0x40), (0x300, 0x320)],
        [(0x900, 0xE7F), (0x20, 0x20)],
        [(0x1100, 0x11FF), (0xAC00, 0xD7A3), (0x3000, 0x30FF), (0x4E00, 0x9FFF)],
        [(0x2000, 0x206F), (0xFE00, 0xFE0F), (0x1F300, 0x1FAFF), (0x20, 0x7E)],
        [(0x1E00, 0x1FFF), (0x300, 0x345)],
        [(0x0, 0xD7FF), (0xE000, 0xFFFF)],
        [(0x0, 0xD7FF), (0xE000, 0x10FFFF)],
        [(0x9, 0xD), (0x20, 0x20), (0xA0, 0xA0), (0x2028, 0x2029), (0x61, 0x63), (0x27, 0x27), (0x30, 0x33)],
    ]
    texts = []
    for _ in range(count):
        pool = draw.choice(pools)
        texts.append("".join(chr(draw.randint(*draw.choice(pool))) for _ in range(draw.randint(0, length))))
    return texts


def _bpe(pre: Any, *, normalizer: Any = None, special: tuple[str, ...] = ("<|end|>",), **how: Any) -> Any:
    tokenizer = library.Tokenizer(library.models.BPE(**how))
    tokenizer.pre_tokenizer = pre
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=420, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.decoder = library.decoders.ByteLevel()
    return tokenizer


def gpt2(*, prefix: bool = False, trim: bool = True) -> Any:
    tokenizer = _bpe(library.pre_tokenizers.ByteLevel(add_prefix_space=prefix))
    tokenizer.post_processor = library.processors.ByteLevel(trim_offsets=trim, add_prefix_space=prefix)
    return tokenizer


def of_pattern(pattern: str, *, normalizer: Any = None) -> Any:
    pre = library.pre_tokenizers
    split = pre.Split(library.Regex(pattern), "isolated", invert=False)
    tokenizer = _bpe(
        pre.Sequence([split, pre.ByteLevel(add_prefix_space=False, use_regex=False)]),
        normalizer=normalizer, special=("<|end|>", "<s>"), ignore_merges=True,
    )  # fmt: skip
    tokenizer.post_processor = library.processors.Sequence(
        [
            library.processors.ByteLevel(trim_offsets=False),
            library.processors.TemplateProcessing(
                single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
            ),
        ]
    )
    return tokenizer


def smol() -> Any:
    pre = library.pre_tokenizers
    return _bpe(pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]))


def sentence_piece(*, metaspace: bool) -> Any:
    """Llama 2's: pairs of characters, bytes for what is unknown, and no words."""
    learner = library.Tokenizer(library.models.BPE(unk_token="<unk>"))
    learner.pre_tokenizer = library.pre_tokenizers.Metaspace()
    learner.train_from_iterator(
        TEXT[:4],
        library.trainers.BpeTrainer(vocab_size=250, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False),
    )
    saved = json.loads(learner.to_str())
    vocabulary: dict[str, int] = {}
    tokens = list(saved["model"]["vocab"])
    for token in [*tokens[:3], *(f"<0x{byte:02X}>" for byte in range(256)), *tokens[3:], "▁▁", "▁▁▁▁"]:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [*saved["model"]["merges"], ["▁", "▁"], ["▁▁", "▁▁"]]
    saved["model"] |= {"vocab": vocabulary, "merges": merges, "byte_fallback": True, "fuse_unk": True}
    for token in saved["added_tokens"]:
        token["id"] = vocabulary[token["content"]]
    mark = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    saved["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, mark]}
    saved["pre_tokenizer"] = None
    if metaspace:
        saved["normalizer"] = None
        saved["pre_tokenizer"] = {
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False
        }  # fmt: skip
    back = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    saved["decoder"] = {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]}
    saved["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [vocabulary["<s>"]], "tokens": ["<s>"]}},
    }
    return library.Tokenizer.from_str(json.dumps(saved))


def unigram(*, fallback: bool) -> Any:
    """T5's and XLM-R's."""
    tokenizer = library.Tokenizer(library.models.Unigram())
    norm = library.normalizers
    tokenizer.normalizer = norm.Sequence([norm.NFKC(), norm.Replace(library.Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = library.pre_tokenizers.Metaspace()
    trainer = library.trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXT[:4], trainer)
    tokenizer.decoder = library.decoders.Metaspace()
    tokenizer.post_processor = library.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    if not fallback:
        return tokenizer
    saved = json.loads(tokenizer.to_str())
    saved["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
    saved["model"]["byte_fallback"] = True
    return library.Tokenizer.from_str(json.dumps(saved))


def bert(*, lower: bool, strip: bool | None = None) -> Any:
    tokenizer = library.Tokenizer(library.models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = library.normalizers.BertNormalizer(lowercase=lower, strip_accents=strip)
    tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = library.trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXT, trainer)
    cls, sep = (("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]")))
    tokenizer.post_processor = library.processors.BertProcessing(sep, cls)
    tokenizer.decoder = library.decoders.WordPiece()
    return tokenizer


def with_added() -> Any:
    """Tokens that take the spaces around them, that are words, and that are found in the normalised text."""
    tokenizer = bert(lower=True)
    added = library.AddedToken
    tokenizer.add_special_tokens([added("[MASK]", lstrip=True, rstrip=True)])
    tokenizer.add_tokens(
        [added("new", single_word=True), added("Größe", normalized=True), added("  ", normalized=False)]
    )
    return tokenizer


def forms(name: str) -> Any:
    """A normal form, then characters."""
    pre = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return _bpe(pre, normalizer=getattr(library.normalizers, name)())


def assorted() -> Any:
    """Stages that stand in files of other models."""
    norm, pre = library.normalizers, library.pre_tokenizers
    tokenizer = _bpe(
        pre.Sequence([
            pre.WhitespaceSplit(), pre.Punctuation("contiguous"), pre.Digits(False),
            pre.Split("e", "merged_with_previous"), pre.Split(library.Regex("[aeiou]+"), "merged_with_next"),
            pre.Metaspace(prepend_scheme="never"),
        ]),
        normalizer=norm.Sequence([norm.Strip(), norm.StripAccents(), norm.Lowercase(), norm.Replace("the", "a")]),
    )  # fmt: skip
    tokenizer.decoder = library.decoders.Metaspace(prepend_scheme="never")
    return tokenizer


MADE: dict[str, Any] = {
    "GPT-2": gpt2,
    "GPT-2, prefix": lambda: gpt2(prefix=True),
    "GPT-2, untrimmed": lambda: gpt2(trim=False),
    "Llama 3": lambda: of_pattern(LLAMA3),
    "Qwen": lambda: of_pattern(LLAMA3.replace("{1,3}", ""), normalizer=library.normalizers.NFC()),
    "o200k": lambda: of_pattern(O200K),
    "SmolLM": smol,
    "Llama 2": lambda: sentence_piece(metaspace=False),
    "Llama 2, Metaspace": lambda: sentence_piece(metaspace=True),
    "Unigram": lambda: unigram(fallback=False),
    "Unigram, bytes": lambda: unigram(fallback=True),
    "BERT": lambda: bert(lower=True),
    "BERT, cased": lambda: bert(lower=False),
    "BERT, accents kept": lambda: bert(lower=True, strip=False),
    "added tokens": with_added,
    "NFD": lambda: forms("NFD"),
    "NFKC": lambda: forms("NFKC"),
    "NFKD": lambda: forms("NFKD"),
    "assorted": assorted,
}
