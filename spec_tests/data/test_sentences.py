"""Laws of documents, sentences and the pairs made of them. (NSP, SOP)"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.data.corpus import read_text, split
from refllm.data.sentences import (
    FILE_BORDER,
    IN_ORDER,
    OTHERWISE,
    PAIRINGS,
    Document,
    encoded,
    fitting,
    marked,
    next_sentence_pairs,
    sentence_order_pairs,
    sentences,
    split_documents,
    stretches,
)
from refllm.errors import UserError
from refllm.tokenizers import CharacterTokenizer


@pytest.mark.parametrize(
    ("paragraph", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("It costs 3.50 here, e.g. the red\none.  Next", ["It costs 3.50 here, e.g. the red one.", "Next"]),
        ('He said "No." She left. (Then.) [1] 2', ['He said "No."', "She left.", "(Then.)", "[1] 2"]),
        ("第一句。第二句！“第三句？”完", ["第一句。", "第二句！", "“第三句？”", "完"]),
        ("Wait... What?! Yes… no", ["Wait...", "What?!", "Yes… no"]),
        (" \n ", []),
    ],
)
def test_sentences_end_at_their_marks_unless_a_small_letter_follows(paragraph: str, expected: list[str]) -> None:
    assert sentences(paragraph) == expected


@given(st.text(st.sampled_from("aB.!? \n。”)"), max_size=60))
def test_no_character_but_white_space_is_lost_between_sentences(paragraph: str) -> None:
    found = sentences(paragraph)
    assert "".join("".join(found).split()) == "".join(paragraph.split())
    assert all(sentence == " ".join(sentence.split()) != "" for sentence in found)


def test_a_document_begins_at_a_heading_or_after_three_blank_lines() -> None:
    text = "First\n*****\n\nOne. Two.\n\nThree.\n# Second\nFour. Five.\n\n\n\nSix.\nSeven!  Eight.\n\nAlone\n=====\n"
    assert split_documents(text) == [
        ["First", "One.", "Two.", "Three."],
        ["Second", "Four.", "Five."],
        ["Six.", "Seven!", "Eight."],
    ]


def test_no_document_goes_on_from_one_file_into_the_next_even_where_paragraphs_are_taken_out(tmp_path: Path) -> None:
    """The second half of every second file stands in the held-out part too, and is taken out."""
    repeated = "This is a paragraph that every second file ends with. It is long enough.\n"
    for n in range(10, 50):
        middle = "".join(f"File {n} has line {m}.\n" for m in range(12))
        (tmp_path / f"{n}.txt").write_text(middle + ("\n" + repeated) * (n % 2))
    parts = split(read_text([tmp_path], border=FILE_BORDER))
    assert parts.removed > 15 * len(repeated)
    for part, files in ((parts.train, range(10, 46)), (parts.validation, range(47, 50))):
        documents = [document for document in split_documents(part) if document[0].startswith("File")]
        assert {n for document in documents for n in (int(s.split()[1]) for s in document)} >= set(files)
        assert all(len({sentence.split()[1] for sentence in document}) == 1 for document in documents)


def test_without_headings_each_paragraph_is_a_document_and_single_sentences_are_left_out() -> None:
    assert split_documents("One. Two.\n\nAlone.\n \nThree. Four.") == [["One.", "Two."], ["Three.", "Four."]]
    assert split_documents("Alone.") == split_documents("") == []


def test_rules_and_borders_of_tables_are_no_sentences_and_cost_little_time() -> None:
    assert split_documents("a b\n  +---+---+ \nc. D\n- - - -\n...\n") == [["a b", "c.", "D", "..."]]
    assert split_documents("- " * 100_000 + "x") == []


def test_sentences_without_tokens_are_left_out() -> None:
    class Letters(CharacterTokenizer):
        def encode(self, text: str):  # type: ignore[no-untyped-def]
            return super().encode("".join(c for c in text if c in self.vocabulary))

    documents = encoded([["ab", "-", "b"], ["a", "-"]], Letters("ab"))
    assert [[ids.tolist() for ids in document] for document in documents] == [[[0, 1], [1]]]


def library(sizes: list[list[int]]) -> list[Document]:
    """Documents of numbered tokens: 1000 d + 0, 1, 2 … in document d, cut into sentences of these sizes."""
    return [
        np.split(1000 * d + np.arange(sum(lengths)), np.cumsum(lengths)[:-1].tolist())
        for d, lengths in enumerate(sizes)
    ]


libraries = st.lists(st.lists(st.integers(1, 6), min_size=2, max_size=9), min_size=2, max_size=5).map(library)
rooms = st.integers(2, 30)
seeds = st.integers(0, 999)


@given(libraries, rooms, seeds, st.sampled_from(sorted(PAIRINGS)))
def test_a_pair_fits_and_each_segment_is_a_piece_of_one_document(
    documents: list[Document], room: int, seed: int, kind: str
) -> None:
    pairs = PAIRINGS[kind](documents, room=room, generator=np.random.default_rng(seed))
    assert pairs
    for first, second, _ in pairs:
        assert min(len(first), len(second)) >= 1
        assert len(first) + len(second) <= room
        for segment in (first, second):
            assert (np.diff(segment) == 1).all()


@given(libraries, rooms, seeds)
def test_the_second_segment_follows_the_first_or_is_of_another_document(
    documents: list[Document], room: int, seed: int
) -> None:
    for first, second, label in next_sentence_pairs(documents, room=room, generator=np.random.default_rng(seed)):
        if label == IN_ORDER:
            assert second[0] == first[-1] + 1
        else:
            assert label == OTHERWISE
            assert second[0] // 1000 != first[0] // 1000


@given(libraries, rooms, seeds)
def test_swapped_segments_are_those_that_would_stand_in_order(documents: list[Document], room: int, seed: int) -> None:
    for first, second, label in sentence_order_pairs(documents, room=room, generator=np.random.default_rng(seed)):
        before, after = (first, second) if label == IN_ORDER else (second, first)
        assert after[0] == before[-1] + 1


@pytest.mark.parametrize("kind", sorted(PAIRINGS))
def test_half_of_the_pairs_are_in_order(kind: str) -> None:
    documents = library([[3] * 9] * 300)
    labels = [pair.label for pair in PAIRINGS[kind](documents, room=9, generator=np.random.default_rng(0))]
    assert np.mean(labels) == pytest.approx(0.5, abs=4 * 0.5 / len(labels) ** 0.5)


@given(rooms, seeds, st.sampled_from(sorted(PAIRINGS)))
def test_documents_that_fill_the_room_give_pairs_that_fill_it_whatever_the_label(
    room: int, seed: int, kind: str
) -> None:
    random = np.random.default_rng(seed)
    documents = library([random.integers(1, 9, random.integers(30, 40)).tolist() for _ in range(4)])
    for first, second, _ in PAIRINGS[kind](documents, room=room, generator=random):
        assert len(first) + len(second) == room


def test_the_lengths_of_the_segments_tell_nothing_about_the_label() -> None:
    """The best rule of the form `longer than so much` is no better than chance, however different the sentences."""
    random = np.random.default_rng(0)
    documents = library([random.geometric(0.1, random.integers(2, 40)).tolist() for _ in range(400)])
    pairs = next_sentence_pairs(documents, room=40, generator=random)
    labels = np.array([pair.label for pair in pairs])
    for lengths in ([len(pair.first) for pair in pairs], [len(pair.first) + len(pair.second) for pair in pairs]):
        longer = np.array(lengths)[:, None] > np.arange(41)
        right = (longer == labels[:, None]).mean(axis=0)
        assert abs(right - 0.5).max() < 4 * 0.5 / len(pairs) ** 0.5


@given(st.integers(2, 40), rooms, seeds)
def test_the_stretches_of_a_document_pass_over_nothing(size: int, room: int, seed: int) -> None:
    """Sentences of one token are never cut: all are shown, in order, and only the last stretch shows some again."""
    (document,) = library([[1] * size])
    shown = [np.concatenate(pair) for pair in stretches(document, room=room, generator=np.random.default_rng(seed))]
    assert sorted(set(np.concatenate(shown).tolist())) == list(range(size))
    assert {len(stretch) for stretch in shown} == {min(size, room)}
    for one, other in pairwise(shown[:-1]):
        assert other[0] == one[-1] + 1


@pytest.mark.parametrize("kind", sorted(PAIRINGS))
def test_the_same_draws_give_the_same_pairs(kind: str) -> None:
    documents = library([[3, 1, 4, 1, 5], [2, 6, 5], [3, 5, 8]])
    first, again, other = (
        [
            (a.tolist(), b.tolist(), c)
            for a, b, c in PAIRINGS[kind](documents, room=9, generator=np.random.default_rng(s))
        ]
        for s in (1, 1, 2)
    )
    assert first == again != other


@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 40))
def test_the_longer_segment_gives_way_until_both_are_equal(first: int, second: int, room: int) -> None:
    left, right = fitting(first, second, room=room)
    assert (left, right) == (first, second) if first + second <= room else left + right == room
    assert 1 <= left <= first
    assert 1 <= right <= second
    if left < first and right < second:
        assert abs(left - right) <= 1
    if left < first and right == second:
        assert left >= right - 1
    if right < second and left == first:
        assert right >= left


def test_truncation_keeps_what_stands_at_the_border() -> None:
    documents = library([[20, 20], [20, 20]])
    for first, second, label in next_sentence_pairs(documents, room=8, generator=np.random.default_rng(0)):
        assert first[-1] % 1000 == 19
        assert len(first) == len(second) == 4
        assert label == OTHERWISE or second[0] % 1000 == 20


def test_too_few_documents_or_too_little_room_is_refused_in_one_line() -> None:
    documents = library([[3, 3], [3, 3]])
    for pairing, few in ((next_sentence_pairs, documents[:1]), (sentence_order_pairs, [])):
        with pytest.raises(UserError, match="give more text, with headings or blank lines") as caught:
            pairing(few, room=9, generator=np.random.default_rng(0))
        assert len(str(caught.value).splitlines()) == 1
        with pytest.raises(UserError, match="raise the context to 5"):
            pairing(documents, room=1, generator=np.random.default_rng(0))


def test_a_text_begins_with_cls_and_each_segment_ends_with_sep() -> None:
    ids, segments = marked(np.array([7, 8]), None, cls=2, sep=3)
    assert (ids.tolist(), segments.tolist()) == ([2, 7, 8, 3], [0, 0, 0, 0])
    ids, segments = marked(np.array([7, 8]), np.array([9]), cls=2, sep=3)
    assert (ids.tolist(), segments.tolist()) == ([2, 7, 8, 3, 9, 3], [0, 0, 0, 0, 1, 1])
