"""Laws of examples, pairs and questions read from files, and of their split. (DATA)"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.data.examples import (
    Example,
    Pair,
    Question,
    folded,
    labels_of,
    read_labelled,
    read_pairs,
    read_questions,
    split_examples,
)
from refllm.errors import UserError

ROWS = [("Good.", "yes"), ('A comma, and a "quote"', "no"), ("Two\nlines", "yes"), ("ünï 中 \u2028 x", "no")]
# what a file can hold: no NUL, no half of a pair, and line ends as one character
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff"), min_size=1).filter(str.strip)


def as_table(rows: list[tuple[str, str]], delimiter: str) -> str:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows([("text", "label"), *rows])
    return out.getvalue()


def as_lines(rows: list[tuple[str, str]]) -> str:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)


def read(path: Path, content: str | bytes, needs_label: bool = True) -> list[Example]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_labelled([path], text="text", label="label", needs_label=needs_label)


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.csv", as_table(ROWS, ","), [2, 3, 4, 6]),
        ("a.TSV", as_table(ROWS, "\t"), [2, 3, 4, 6]),
        ("a.csv", "\ufeff" + as_table(ROWS, ","), [2, 3, 4, 6]),
        ("a.jsonl", as_lines(ROWS), [1, 2, 3, 4]),
        ("a.ndjson", "\n" + as_lines(ROWS).replace("\n", "\r\n\r\n"), [2, 4, 6, 8]),
    ],
)
def test_every_form_gives_the_same_examples_and_where_they_begin(
    tmp_path: Path, name: str, content: str, lines: list[int]
) -> None:
    path = tmp_path / name
    found = read(path, content)
    assert [(one.text, one.label) for one in found] == ROWS
    assert [one.where for one in found] == [f"{path}:{line}" for line in lines]


@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
def test_a_table_that_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    wanted = [(text, label.strip()) for text, label in rows]
    for name, content in (("a.csv", as_table(rows, ",")), ("a.tsv", as_table(rows, "\t")), ("a.jsonl", as_lines(rows))):
        assert [(one.text, one.label) for one in read(folder / name, content)] == wanted


def test_a_folder_a_label_gives_every_file_once(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a/deep/1.txt", "a/.hidden", ".git/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}")
    found = read_labelled([tmp_path], text="text", label="label", needs_label=True)
    assert found == [
        Example("text of a/deep/1.txt\n", "a", f"{tmp_path}/a/deep/1.txt:1"),
        Example("text of b/2.txt\n", "b", f"{tmp_path}/b/2.txt:1"),
    ]


def test_a_label_whose_folder_is_not_named_in_utf_8_is_refused_by_its_bytes(tmp_path: Path) -> None:
    for name in (b"a", b"b\xe9"):
        try:
            Path(tmp_path, os.fsdecode(name)).mkdir()
        except OSError:
            pytest.skip("this file system has UTF-8 names alone")
    with pytest.raises(UserError) as refused:
        read_labelled([tmp_path], text="text", label="label", needs_label=True)
    assert str(refused.value).startswith(f"{tmp_path}/b\\xe9: the name of this folder is a label, and it is not UTF-8;")


def test_several_paths_are_read_in_their_order(tmp_path: Path) -> None:
    for name in ("two.csv", "one.jsonl"):
        rows = [(name, "x")]
        (tmp_path / name).write_text(as_table(rows, ",") if name.endswith("csv") else as_lines(rows))
    paths = [tmp_path / "two.csv", tmp_path / "one.jsonl"]
    found = read_labelled(paths, text="text", label="label", needs_label=True)
    assert [one.text for one in found] == ["two.csv", "one.jsonl"]


def test_labels_may_be_missing_where_they_are_not_needed(tmp_path: Path) -> None:
    assert [one.label for one in read(tmp_path / "a.csv", "text\nx\n", needs_label=False)] == [None]
    assert [one.label for one in read(tmp_path / "b.csv", "text,label\nx, \ny,b\n", needs_label=False)] == [None, "b"]
    assert [one.label for one in read(tmp_path / "c.jsonl", '{"text": "x"}', needs_label=False)] == [None]


def test_numbers_and_truth_values_of_json_are_labels(tmp_path: Path) -> None:
    content = '{"text": "x", "label": 1}\n{"text": "y", "label": true}\n{"text": 7, "label": "1"}\n'
    assert [(one.text, one.label) for one in read(tmp_path / "a.jsonl", content)] == [
        ("x", "1"), ("y", "true"), ("7", "1"),
    ]  # fmt: skip


def test_a_text_may_be_longer_than_the_csv_module_expects(tmp_path: Path) -> None:
    long = "word " * 30_000
    assert [one.text for one in read(tmp_path / "a.csv", as_table([(long, "a")], ","))] == [long]


REFUSED: dict[str, tuple[str, str | bytes, str]] = {
    "no such column": ("a.csv", "review,stars\nx,1\n", "a.csv:1: the column 'text' is not among review, stars;"),
    "a column twice": ("a.csv", "text,label,text\nx,a,y\n", "a.csv:1: the column 'text' is twice; correct the header"),
    "no labels": ("a.csv", "text\nx\n", "a.csv:1: the column 'label' is not among text;"),
    "a blank header": ("a.csv", "\ntext,label\n", "a.csv:1: the column 'text' is not among those of an empty header"),
    "no rows": ("a.csv", "text,label\n", "there is no example in "),
    "an empty text": ("a.csv", 'text,label\n"a\nb",x\n  ,y\n', "a.csv:4: the text is empty; fill it in or take"),
    "an empty label": ("a.csv", "text,label\nx,a\n\ny, \n", "a.csv:4: there is no label; fill in the column 'label'"),
    "a cell too many": ("a.csv", "text,label\nx,y,a\n", "a.csv:2: 3 cells where the header has 2; quote what holds"),
    "a cell too few": ("a.tsv", "text\tlabel\nx\ta\ny\n", "a.tsv:3: 1 cells where the header has 2"),
    "an open quote": ("a.csv", 'text,label\nx,a\n"y,a\nz,a\n', "a.csv:3: not a table (unexpected end of data)"),
    "no JSON": ("a.jsonl", '{"text": "x", "label": "a"}\n{text: 1}\n', "a.jsonl:2: not JSON ("),
    "a deep JSON": ("a.jsonl", "[" * 100_000 + "\n", "a.jsonl:1: not JSON ("),
    "a list": ("a.jsonl", '["x", "a"]\n', "a.jsonl:1: not an object; write one with text, label"),
    "a field missing": ("a.jsonl", '{"text": "x"}\n', "a.jsonl:1: there is no 'label'; every line needs it"),
    "a field is null": ("a.jsonl", '{"text": null, "label": "a"}\n', "a.jsonl:1: there is no 'text'"),
    "a list of labels": (
        "a.jsonl", '{"text": "x", "label": ["a"]}\n', "a.jsonl:1: 'label' must be text or a whole number; got ['a']",
    ),
    "half a pair": ("a.jsonl", '{"text": "\\ud800", "label": "a"}\n', "a.jsonl:1: half of a surrogate pair"),
    "another format": ("a.xlsx", "x", "a.xlsx: give .csv or .tsv with a header, .jsonl, or a folder; got .xlsx"),
    "no suffix": ("data", "x", "data: give .csv or .tsv with a header, .jsonl, or a folder; got no suffix"),
    "a broken encoding": ("a.csv", b"text,label\nx,a\ncaf\xe9,b\n", "a.csv:3 is not UTF-8 text: byte 18 cannot be"),
    "an empty file": ("a.csv", " \n", "a.csv is empty; give a file with text"),
    "a binary file": ("a.csv", b"text,label\n\0,a\n", "a.csv:2 is binary"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_set_of_examples_is_refused_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, says: str
) -> None:
    with pytest.raises(UserError) as refused:
        read(tmp_path / name, content)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_without_subfolders_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(UserError, match="has no subfolders; give a folder with a subfolder a label, or a table"):
        read_labelled([tmp_path], text="text", label="label", needs_label=True)
    with pytest.raises(UserError, match=r"none.csv does not exist; check the path"):
        read_labelled([tmp_path / "none.csv"], text="text", label="label", needs_label=True)
    with pytest.raises(UserError, match="there is no example in an empty list"):
        read_labelled([], text="text", label="label", needs_label=True)


def test_parallel_files_and_tables_give_the_same_pairs(tmp_path: Path) -> None:
    source, target, table = tmp_path / "a.en", tmp_path / "a.de", tmp_path / "a.tsv"
    source.write_text("one\r\ntwo, three\n")
    target.write_text("eins\nzwei \u2028 drei")
    table.write_text("en\tde\none\teins\ntwo, three\tzwei \u2028 drei\n")
    wanted = [("one", "eins"), ("two, three", "zwei \u2028 drei")]
    parallel = read_pairs([source, target], source="ignored", target="ignored")
    assert parallel == [Pair(*wanted[0], f"{source}:1"), Pair(*wanted[1], f"{source}:2")]
    assert [(pair.source, pair.target) for pair in read_pairs([table], source="en", target="de")] == wanted


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a": "x\ny\n", "b": "x\n"}, r"/a:2: the other file ends before .*/a has 2 lines and .*/b 1; parallel files"),
        ({"a": "x\n", "b": "x\ny\nz\n"}, r"/b:2: the other file ends before this line: .*/a has 1 lines and .*/b 3;"),
        ({"a": "x\n\nz\n", "b": "x\ny\nz\n"}, r"/a:2: the line is empty; take it out of both files"),
        ({"a": "x\ny\n", "b": "x\n  \n"}, r"/b:2: the line is empty; take it out of both files"),
        ({"a": "x\n", "b": "y\n", "c": "z\n"}, r"/a: give two parallel files alone, or .csv or .tsv with a header"),
        ({"a.csv": "en,de\nx,\n"}, r"/a.csv:2: the de is empty; fill it in or take the line out"),
        ({"a.csv": "en,de\n"}, "there is no pair in .*a.csv; give a file with rows"),
        ({"a.txt": "x\n"}, "a.txt: give two parallel files alone, or .csv or .tsv with a header, or .jsonl"),
    ],
)
def test_what_does_not_pair_is_refused_with_its_line(tmp_path: Path, files: dict[str, str], says: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=says):
        read_pairs([tmp_path / name for name in files], source="en", target="de")


def questions(path: Path, **row: Any) -> list[Question]:
    usual = {"context": "The cat saw the other cat.", "question": "Who?", "answer": "cat"}
    path.write_text(json.dumps({**usual, **row}) + "\n")
    return read_questions([path])


@pytest.mark.parametrize(
    ("row", "start"), [({}, 4), ({"start": 22}, 22), ({"start": " 22 "}, 22), ({"start": ""}, 4),
                       ({"start": 22.0}, 22), ({"start": "22.0"}, 22), ({"start": None}, 4),
                       ({"answer": " cat", "start": 21}, 22), ({"answer": " cat "}, 4)],
)  # fmt: skip
def test_an_answer_stands_at_its_start(tmp_path: Path, row: dict[str, Any], start: int) -> None:
    (found,) = questions(tmp_path / "a.jsonl", **row)
    assert (found.start, found.answer) == (start, "cat")
    assert found.context[found.start :].startswith(found.answer)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"answer": "dog"}, "a.jsonl:1: the answer 'dog' does not stand in the context; copy it from there"),
        ({"start": 5}, "a.jsonl:1: the answer 'cat' does not stand in the context at character 5; copy it"),
        ({"start": -4}, "a.jsonl:1: the answer 'cat' does not stand in the context at character -4"),
        ({"start": "--4"}, "a.jsonl:1: start must be a whole number"),
        ({"start": "²"}, "a.jsonl:1: start must be a whole number"),
        ({"start": 4.5}, "a.jsonl:1: start must be a whole number, the place of the answer's first character; got '4"),
        ({"start": 5.0}, "a.jsonl:1: the answer 'cat' does not stand in the context at character 5.0; copy it"),
        ({"start": [4]}, "a.jsonl:1: start must be a whole number"),
        ({"start": {"a": 4}}, "a.jsonl:1: start must be a whole number"),
        ({"start": True}, "a.jsonl:1: start must be a whole number"),
        ({"start": math.nan}, "a.jsonl:1: start must be a whole number"),
        ({"answer": " "}, "a.jsonl:1: the answer is empty; fill it in"),
        ({"question": ""}, "a.jsonl:1: the question is empty; fill it in"),
        ({"context": " "}, "a.jsonl:1: the context is empty; fill it in"),
        ({"context": None}, "a.jsonl:1: there is no 'context'; every line needs it"),
    ],
)
def test_a_question_without_its_answer_is_refused(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as refused:
        questions(tmp_path / "a.jsonl", **row)
    assert says in str(refused.value)


ITEMS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abc")), min_size=2, max_size=60)


def parts(items: list[tuple[int, str]], share: float, seed: int = 0) -> tuple[list[Any], list[Any]]:
    return split_examples(items, key=lambda i: i[0], group=lambda i: i[1], validation=share, seed=seed)


@given(items=ITEMS, share=st.floats(0.05, 0.95), seed=st.integers(0, 3))
def test_a_split_loses_nothing_and_keeps_equal_keys_together(
    items: list[tuple[int, str]], share: float, seed: int
) -> None:
    try:
        train, held = parts(items, share, seed)
    except UserError as refused:
        assert "too few to hold out" in str(refused)  # noqa: PT017 (either way is right)
        return
    assert Counter(train) + Counter(held) == Counter(items)
    assert not {key for key, _ in train} & {key for key, _ in held}
    assert (train, held) == parts(items, share, seed)
    assert [item for item in items if item in set(held)] == held  # in their order


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=8), share=st.floats(0.05, 0.5))
def test_each_label_gives_its_share_and_keeps_something_to_learn_from(sizes: list[int], share: float) -> None:
    """Without duplicates; the shares of small labels, which give one or nothing, add up over the labels."""
    items = [(f"{label} {i}", str(label)) for label, n in enumerate(sizes) for i in range(n)]
    try:
        train, held = split_examples(items, key=lambda i: i[0], group=lambda i: i[1], validation=share, seed=1)
    except UserError:
        assert share * sum(sizes) <= len(sizes)  # less than one a label
        return
    for label, n in enumerate(sizes):
        taken = sum(group == str(label) for _, group in held)
        assert taken <= min(n - 1, math.ceil(share * n))
        assert any(group == str(label) for _, group in train)
    assert len(held) <= share * len(items) + 0.5


def test_many_small_labels_give_their_share_together() -> None:
    items = [(f"{label} {i}", label) for label in range(100) for i in range(3)]
    _, held = split_examples(items, key=lambda i: i[0], group=lambda i: i[1], validation=0.1, seed=0)
    assert len(held) == 30
    assert max(Counter(label for _, label in held).values()) == 1


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, math.nan])
def test_a_share_that_leaves_a_side_empty_is_refused(share: float) -> None:
    with pytest.raises(UserError, match=r"must be a fraction between 0 and 1, such as 0\.1"):
        parts([(1, "a"), (2, "a")], share)


def test_too_few_examples_cannot_be_split() -> None:
    with pytest.raises(UserError, match=r"2 examples are too few to hold out 0\.1 of them; give more$"):
        parts([(1, "a"), (2, "b")], 0.1)


def test_many_copies_of_few_examples_are_called_so() -> None:
    with pytest.raises(UserError, match=r"40 examples are too few to hold out 0\.1 of them; distinct ones .*: 2 \("):
        parts([(1, "a"), (2, "b")] * 20, 0.1)


def test_one_column_or_one_file_is_not_both_sides_of_the_examples(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "a.en").write_text("one\n")
    says = "both sides of the examples are the one column 'x'; name another one for one of them"
    with pytest.raises(UserError, match=says):
        read_labelled([tmp_path / "a.csv"], text="x", label="x", needs_label=True)
    with pytest.raises(UserError, match=says):
        read_pairs([tmp_path / "a.csv"], source="x", target="x")
    with pytest.raises(UserError, match=r"a\.en is given for both sides; give the file of the other side beside it"):
        read_pairs([tmp_path / "a.en", tmp_path / "." / "a.en"], source="x", target="y")


@given(TEXT)
def test_case_and_space_do_not_tell_texts_apart(text: str) -> None:
    assert folded(f"  {text}\n\t") == folded(text) == folded(" ".join(text.split()))
    assert folded("Straße  X") == folded("strasse x") != folded("strassex")


def test_labels_are_sorted_and_at_least_two() -> None:
    assert labels_of([Example("x", "b", "f:1"), Example("x", "a", "f:2"), Example("x", None, "f:3")]) == ["a", "b"]
    with pytest.raises(UserError, match="f:2: from here on all 2 examples have the one label 'a'; a classifier needs"):
        labels_of([Example("x", "a", "f:2"), Example("y", "a", "f:3")])
    with pytest.raises(UserError, match="f:2: from here on no example has a label; a classifier needs at least two"):
        labels_of([Example("x", None, "f:2")])
