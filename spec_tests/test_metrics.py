"""Laws of perplexity and bits per character (PPL), and of the scores of labels."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.metrics import (
    Scores,
    accuracy,
    binary_scores,
    bits_per_character,
    bits_per_token,
    bleu_and_chrf,
    bleu_tokenizer,
    confusion_matrix,
    exact_match,
    has_sacrebleu,
    label_scores,
    longest_common_subsequence,
    macro_scores,
    micro_scores,
    perplexity,
    rouge_l,
    token_f1,
)

LABELS = "abcd"
ANSWERS = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=30)


@given(V=st.integers(1, 10**6), T=st.integers(1, 10**4))
def test_the_perplexity_of_guessing_evenly_is_the_size_of_the_vocabulary(V: int, T: int) -> None:
    assert perplexity(T * math.log(V), T) == pytest.approx(V, rel=1e-12)


@given(V=st.integers(2, 10**6), n=st.integers(1, 10**4))
def test_guessing_evenly_costs_the_binary_logarithm_of_the_vocabulary_a_character(V: int, n: int) -> None:
    assert bits_per_character(n * math.log(V), n) == pytest.approx(math.log2(V), rel=1e-12)


@given(T=st.integers(1, 10**4), nll=st.floats(0.1, 500))
def test_the_bits_of_a_token_are_the_binary_logarithm_of_the_perplexity(T: int, nll: float) -> None:
    assert 2 ** bits_per_token(nll, T) == pytest.approx(perplexity(nll, T), rel=1e-9)


def test_certainty_has_perplexity_one_and_no_bits() -> None:
    assert perplexity(0.0, 5) == 1
    assert bits_per_character(0.0, 5) == 0


@pytest.mark.parametrize("nll", [math.inf, 1e6])
def test_a_perplexity_beyond_the_numbers_is_infinite(nll: float) -> None:
    assert perplexity(nll, 1) == math.inf


@pytest.mark.parametrize("measure", [perplexity, bits_per_character, bits_per_token])
def test_nothing_has_no_measure(measure: object) -> None:
    with pytest.raises(ValueError, match=r"no token|empty"):
        measure(1.0, 0)  # type: ignore[operator]


def columns(answers: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [wanted for wanted, _ in answers], [given for _, given in answers]


@given(ANSWERS)
def test_the_confusion_matrix_counts_each_pair_of_labels(answers: list[tuple[str, str]]) -> None:
    counts = confusion_matrix(*columns(answers), LABELS)
    for (i, a), (j, b) in itertools.product(enumerate(LABELS), repeat=2):
        assert counts[i][j] == answers.count((a, b))


@given(ANSWERS)
def test_the_accuracy_is_the_share_of_the_diagonal_and_the_micro_average(answers: list[tuple[str, str]]) -> None:
    counts = confusion_matrix(*columns(answers), LABELS)
    right = sum(counts[i][i] for i in range(len(LABELS))) / len(answers)
    assert accuracy(*columns(answers)) == right
    assert micro_scores(counts) == Scores(right, right, right, len(answers))


@given(ANSWERS)
def test_a_labels_scores_are_the_shares_that_their_names_say(answers: list[tuple[str, str]]) -> None:
    """Counted one by one, in fractions; F1 as the harmonic mean, which is 0 where either is."""
    scores = label_scores(confusion_matrix(*columns(answers), LABELS))
    f1 = []
    for label, one in zip(LABELS, scores, strict=True):
        of_given = [wanted == label for wanted, given in answers if given == label]
        of_wanted = [given == label for wanted, given in answers if wanted == label]
        precision = Fraction(sum(of_given), len(of_given)) if of_given else Fraction(0)
        recall = Fraction(sum(of_wanted), len(of_wanted)) if of_wanted else Fraction(0)
        mean = 2 / (1 / precision + 1 / recall) if precision and recall else Fraction(0)
        assert (one.precision, one.recall, one.count) == (float(precision), float(recall), len(of_wanted))
        assert one.f1 == pytest.approx(float(mean), rel=1e-15)
        if of_given or of_wanted:
            f1.append(mean)
    macro = macro_scores(confusion_matrix(*columns(answers), LABELS))
    assert macro.f1 == pytest.approx(float(sum(f1) / len(f1)), rel=1e-14)
    assert macro.count == len(answers)


@given(ANSWERS, st.permutations(LABELS))
def test_the_order_of_labels_and_labels_that_are_absent_change_no_average(
    answers: list[tuple[str, str]], order: list[str]
) -> None:
    plain = macro_scores(confusion_matrix(*columns(answers), LABELS))
    other = macro_scores(confusion_matrix(*columns(answers), [*order, "absent"]))
    assert (other.precision, other.recall, other.f1) == pytest.approx((plain.precision, plain.recall, plain.f1))


def test_always_the_same_label_has_the_macro_average_of_one_label() -> None:
    counts = confusion_matrix("aabb", "aaaa", "ab")
    assert label_scores(counts) == [Scores(0.5, 1.0, 2 / 3, 2), Scores(0.0, 0.0, 0.0, 2)]
    assert macro_scores(counts) == Scores(0.25, 0.5, 1 / 3, 4)


def test_a_quotient_without_divisor_is_zero() -> None:
    assert binary_scores(hits=0, given=0, wanted=0) == Scores(0.0, 0.0, 0.0, 0)
    assert binary_scores(hits=0, given=0, wanted=3) == Scores(0.0, 0.0, 0.0, 3)
    assert macro_scores([[0, 0], [0, 0]]) == Scores(0.0, 0.0, 0.0, 0)


@pytest.mark.optional
@given(ANSWERS)
def test_scikit_learn_finds_the_same(answers: list[tuple[str, str]]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    wanted, given = columns(answers)
    ours = confusion_matrix(wanted, given, LABELS)
    assert ours == sklearn.confusion_matrix(wanted, given, labels=list(LABELS)).tolist()
    theirs = sklearn.precision_recall_fscore_support(wanted, given, average="macro", zero_division=0)
    macro = macro_scores(ours)
    assert (macro.precision, macro.recall, macro.f1) == pytest.approx(theirs[:3])


@pytest.mark.parametrize(("wanted", "given"), [("", ""), ("ab", "a"), ("a", "ab")])
def test_labels_that_do_not_pair_have_no_score(wanted: str, given: str) -> None:
    with pytest.raises(ValueError, match="needs one given label for each true one, and at least one"):
        accuracy(wanted, given)
    with pytest.raises(ValueError, match="needs one given label for each true one, and at least one"):
        confusion_matrix(wanted, given, LABELS)


def test_a_label_outside_the_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="the label 'z' is not one of a, b, c, d"):
        confusion_matrix("ab", "az", LABELS)


words = st.lists(st.sampled_from("abc"), max_size=6)


@given(a=words, b=words)
def test_the_longest_common_subsequence_is_the_longest_of_all_common_ones(a: list[str], b: list[str]) -> None:
    def every(text: list[str]) -> set[tuple[str, ...]]:
        return {part for size in range(len(text) + 1) for part in itertools.combinations(text, size)}

    assert longest_common_subsequence(a, b) == max(map(len, every(a) & every(b)))


def test_rouge_l_of_the_papers_example() -> None:
    """Lin 2004 sec. 3.1: S2 and S3 against S1, by sequence and not by bigrams."""
    wanted = "police killed the gunman"
    assert rouge_l(wanted, "police kill the gunman") == 0.75
    assert rouge_l(wanted, "the gunman kill police") == 0.5
    assert rouge_l(wanted, "The GUNMAN, police killed") == 0.5
    assert rouge_l(wanted, "gunman the killed police") == 0.25


@given(a=words, b=words)
def test_rouge_l_is_one_for_equal_texts_the_same_from_both_sides_and_zero_without_words(
    a: list[str], b: list[str]
) -> None:
    one, other = " ".join(a), " ".join(b)
    assert rouge_l(one, one) == (1.0 if a else 0.0)
    assert rouge_l(one, other) == rouge_l(other, one)
    assert rouge_l(one, "") == 0


@pytest.mark.parametrize(
    ("wanted", "given", "exact", "f1"),
    [
        ("the Eiffel Tower", "Eiffel tower.", 1, 1),
        ("in 1973", "1973", 0, Fraction(2, 3)),
        ("a b b", "b b b", 0, Fraction(4, 5)),  # the article goes; of b the text has three, the answer two
        ("red", "blue", 0, 0),
        ("the", "", 1, 1),
        ("red", "", 0, 0),
    ],
)
def test_answers_are_compared_without_case_punctuation_and_articles(
    wanted: str, given: str, exact: int, f1: Fraction
) -> None:
    assert exact_match(wanted, given) == exact
    assert token_f1(wanted, given) == pytest.approx(float(f1))


@given(a=words, b=words)
def test_an_exact_match_has_f1_one(a: list[str], b: list[str]) -> None:
    one, other = " ".join(a), " ".join(b)
    assert exact_match(one, other) <= token_f1(one, other) == token_f1(other, one) <= 1


@pytest.mark.optional
def test_bleu_and_chrf_are_a_hundred_for_equal_texts_and_less_for_others() -> None:
    if not has_sacrebleu():
        pytest.skip("sacrebleu is not installed")
    texts = ["This is a sentence of some words.", "And here is another one of them."]
    assert list(bleu_and_chrf(texts, texts)) == pytest.approx([100, 100])
    assert all(value < 100 for value in bleu_and_chrf(texts, ["This is a sentence.", "Another one of them."]))


CHINESE = ["在文件菜单中选择“打印”命令，然后单击确定按钮。", "计算机程序由许多指令组成，这些指令由处理器执行。"]
JAPANESE = ["ファイルメニューの「印刷」を選んでください。", "この文書には二つの表があります。"]
THAI = ["เลือกคำสั่งพิมพ์ในเมนูแฟ้ม", "เอกสารนี้มีสองตาราง"]
KOREAN = ["파일 메뉴에서 인쇄 명령을 선택하십시오.", "이 문서에는 표가 두 개 있습니다."]


@pytest.mark.parametrize(
    ("wanted", "without", "best"),
    [
        (CHINESE, "zh", ""), (JAPANESE, "char", "ja-mecab"), (THAI, "char", ""), (KOREAN, "13a", "ko-mecab"),
        (["Choose Print.", "Wählen Sie Drucken."], "13a", ""), (["Выберите печать."], "13a", ""), ([""], "13a", ""),
    ],
)  # fmt: skip
def test_bleu_cuts_texts_as_their_script_asks(
    wanted: list[str], without: str, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("refllm.metrics.find_spec", lambda name: None)
    assert bleu_tokenizer(wanted) == (without, best)
    monkeypatch.setattr("refllm.metrics.find_spec", lambda name: name)
    assert bleu_tokenizer(wanted) == (best or without, "")


@pytest.mark.optional
@pytest.mark.parametrize("texts", [CHINESE, JAPANESE, THAI])
def test_a_text_without_spaces_that_is_right_but_for_a_sign_has_a_high_bleu(texts: list[str]) -> None:
    if not has_sacrebleu():
        pytest.skip("sacrebleu is not installed")
    assert bleu_and_chrf(texts, texts)[0] == pytest.approx(100)
    assert bleu_and_chrf(texts, [texts[0], texts[1][:-1]])[0] > 90


@pytest.mark.parametrize("texts", [CHINESE, JAPANESE, THAI])
def test_rouge_l_of_a_script_without_spaces_counts_characters(texts: list[str]) -> None:
    whole = texts[0]
    assert rouge_l(whole, whole) == 1
    assert 0.5 < rouge_l(whole, whole[: len(whole) // 2] + "x") < 0.8
    assert rouge_l(whole, texts[1]) < 0.6


def test_rouge_l_of_the_papers_example_in_chinese() -> None:
    """As Lin's example, a character a word: 4 wanted, 4 given, 3 in the same order."""
    assert rouge_l("警杀了敌", "警伤了敌") == 0.75
    assert rouge_l("警 杀了，敌。", "警伤了敌") == 0.75


@pytest.mark.parametrize(
    ("wanted", "given", "exact", "f1"),
    [
        ("北京。", "北京", 1, 1), ("北京市", "北京", 0, Fraction(4, 5)), ("東京タワー", "東京", 0, Fraction(4, 7)),
        ("1973年", "1973", 0, Fraction(2, 3)), ("“quoted”", "quoted", 0, 0),
    ],
)  # fmt: skip
def test_answers_in_scripts_without_spaces_are_compared_by_characters(
    wanted: str, given: str, exact: int, f1: Fraction
) -> None:
    assert exact_match(wanted, given) == exact
    assert token_f1(wanted, given) == pytest.approx(float(f1))
