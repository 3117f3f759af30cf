"""Laws of reading text and of splitting it."""

import os
import sys
import types
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from refllm.data.corpus import REPEATED, Corpus, decoded, lines_of, python_reference, read_text, split, text_of
from refllm.errors import UserError

PARAGRAPHS = [f"Paragraph {number} of this text says the same as none other, at some length." for number in range(40)]


def test_the_default_corpus_is_the_language_reference_in_the_order_of_its_topics() -> None:
    topics = pytest.importorskip("pydoc_data.topics").topics
    text = python_reference().text
    assert len(text) == sum(map(len, topics.values())) > 300_000
    assert text.startswith(topics[min(topics)])
    assert text.endswith(topics[max(topics)])


def test_topics_are_joined_in_the_order_of_their_names_whatever_that_of_the_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("pydoc_data.topics")
    module.topics = {"b": "second\n", "a": "first\n"}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", module)
    assert python_reference().text == "first\nsecond\n"


def test_without_the_language_reference_the_user_is_asked_for_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(UserError, match="--data PATH"):
        python_reference()


# Line endings, byte-order marks, order, copies.


def test_every_line_ending_becomes_a_newline_and_the_byte_order_mark_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n\r\n\xe4\xb8\xad")
    assert read_text([path]).text == "one\ntwo\nthree\n\n中\n"


@pytest.mark.parametrize(("raw", "line"), [(b"a\nb\n\xff", 3), (b"a\rb\r\n\xff", 3), (b"a\x0c\xc2\x85b\n\0", 2)])
def test_the_line_of_a_bad_byte_is_counted_by_the_line_endings_of_the_text(raw: bytes, line: int) -> None:
    with pytest.raises(UserError, match=f"name:{line} is "):
        text_of(raw, "name")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n\ufeff"))))
def test_lines_end_at_line_endings_alone(lines: list[str]) -> None:
    for ending in ("\n", "\r", "\r\n"):
        assert lines_of(text_of("".join(line + ending for line in lines).encode(), "name")) == lines


def test_a_folder_is_read_in_sorted_order_below_every_subfolder_and_without_hidden_files(tmp_path: Path) -> None:
    for name, text in [("b.md", "B"), ("a/z", "AZ"), ("a/b/c.py", "ABC"), (".git/x", "no"), ("a/.hidden", "no")]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    corpus = read_text([tmp_path])
    assert corpus.text == "ABC\nAZ\nB\n"
    assert corpus.skipped == ()


def test_the_order_and_repetition_of_the_paths_do_not_matter(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "cab"]
    for path in paths:
        path.write_text(path.name)
    assert read_text(paths).text == read_text([*reversed(paths), tmp_path, paths[0]]).text == "a\nb\nc\n"
    assert read_text(paths, border="-").text == "a\n-b\n-c\n"


def test_copies_of_a_file_count_once_and_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"same\n")
    (tmp_path / "b").write_bytes(b"same\r\n")
    corpus = read_text([tmp_path])
    assert corpus.text == "same\n"
    assert corpus.skipped == (f"{tmp_path / 'b'} is a copy of {tmp_path / 'a'}",)


# What cannot be read. In a folder it is left out and told; named, it is an error.

UNREADABLE = [
    (b"", "is empty"),
    (b" \n\t\r\n", "is empty"),
    (b"\xef\xbb\xbf", "is empty"),
    (b"text\0text", "is binary: byte 4 is zero"),
    ("中\0".encode(), "is binary: byte 3 is zero"),
    (b"caf\xe9 au lait", "is not UTF-8 text: byte 3 cannot"),
    ("text".encode("utf-16"), "is not UTF-8 text: byte 0 cannot"),
]


@pytest.mark.parametrize(("raw", "reason"), UNREADABLE)
def test_a_named_file_that_is_no_text_is_an_error_that_says_where(tmp_path: Path, raw: bytes, reason: str) -> None:
    path = tmp_path / "data"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=reason) as caught:
        read_text([path])
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(("raw", "reason"), UNREADABLE)
def test_a_file_in_a_folder_that_is_no_text_is_left_out_and_told(tmp_path: Path, raw: bytes, reason: str) -> None:
    (tmp_path / "data").write_bytes(raw)
    (tmp_path / "text").write_text("text")
    corpus = read_text([tmp_path])
    assert corpus.text == "text\n"
    assert len(corpus.skipped) == 1
    assert reason in corpus.skipped[0]


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.txt does not exist"):
        read_text([tmp_path / "missing.txt"])
    with pytest.raises(UserError, match="cannot read"):
        read_text([tmp_path / ("x" * 5000)])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="neither a file nor a folder"):
        read_text([tmp_path / "pipe"])
    with pytest.raises(UserError, match="there is no text"):
        read_text([tmp_path])


def test_a_folder_where_only_a_file_will_do_is_called_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder, and only a file can be read here; give one of its files"):
        decoded(tmp_path)


def test_no_text_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no text in"):
        read_text([tmp_path])
    with pytest.raises(UserError, match="there is no text in"):
        read_text([])


# The split.


@given(st.text("ab \n", min_size=1, max_size=300), st.floats(0.05, 0.9))
def test_train_and_validation_are_the_text_cut_in_two_where_nothing_repeats(text: str, part: float) -> None:
    assume(len(text.strip()) < REPEATED)
    try:
        parts = split(Corpus("text", text), validation=part)
    except UserError:
        return
    assert parts.removed == 0
    assert parts.train + parts.validation == text
    assert parts.train.strip()
    assert parts.validation.strip()


def test_the_cut_is_at_the_first_line_that_starts_in_the_last_tenth() -> None:
    text = "".join(f"{number:03d} words\n" for number in range(1000))
    parts = split(Corpus("text", text), validation=0.1001)
    assert parts.train + parts.validation == text
    assert parts.validation.startswith("900 words\n")
    assert split(Corpus("text", text), validation=0.1).validation.startswith("900 words\n")


def test_a_text_of_one_line_is_cut_at_the_very_character() -> None:
    parts = split(Corpus("text", "x" * 70 + "y" * 30), validation=0.3)
    assert (parts.train, parts.validation) == ("x" * 70, "y" * 30)


@given(st.lists(st.sampled_from(PARAGRAPHS), min_size=20, max_size=60), st.sampled_from(["\n\n", "\n \t\n", "\n\n\n"]))
def test_no_paragraph_of_validation_is_in_the_training_text(paragraphs: list[str], blank: str) -> None:
    text = blank.join(paragraphs)
    try:
        parts = split(Corpus("text", text), validation=0.1)
    except UserError as refusal:
        message = str(refusal)
        # Only where all that comes before the end is also in it.
        assert "repeats itself" in message
        return
    assert text.endswith(parts.validation)
    assert len(parts.train) + len(parts.validation) + parts.removed == len(text)
    for paragraph in PARAGRAPHS:
        assert not (paragraph in parts.train and paragraph in parts.validation.split(blank))
        if paragraph not in parts.validation:
            kept = text[: len(text) - len(parts.validation)].count(paragraph)
            assert parts.train.count(paragraph) == kept


def test_the_default_split_shows_no_paragraph_of_the_last_tenth() -> None:
    corpus = python_reference()
    parts = split(corpus)
    assert corpus.text.endswith(parts.validation)
    assert 0.095 < len(parts.validation) / len(corpus.text) <= 0.1
    seen = {paragraph.strip() for paragraph in parts.train.split("\n\n")}
    shown = {paragraph.strip() for paragraph in parts.validation.split("\n\n")}
    assert not {paragraph for paragraph in seen & shown if len(paragraph) >= REPEATED}


def test_a_text_that_only_repeats_itself_is_refused() -> None:
    with pytest.raises(UserError, match="repeats itself"):
        split(Corpus("text", (PARAGRAPHS[0] + "\n\n") * 50))


@pytest.mark.parametrize("text", ["", "a", "a\n", "abcd", "word\n" + "\n" * 50])
def test_a_text_too_short_to_split_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^text is too short to hold out 0\.1 of it; give more text$"):
        split(Corpus("text", text))


@pytest.mark.parametrize("part", [0.0, 1.0, -0.1, float("nan")])
def test_the_validation_part_is_a_fraction(part: float) -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        split(Corpus("text", "text\n" * 100), validation=part)
