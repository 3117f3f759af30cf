"""The examples of README and of the pages for users run as they are printed, and say what is printed."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from refllm import cli
from spec_tests.written_pages import ROOT, blocks, fenced, inline, prose, text_of

LINES = 120  # of a README that is one page


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_the_readme_is_one_page(page: str) -> None:
    assert len(text_of(page).splitlines()) <= LINES


@pytest.mark.parametrize("page", ["README.md", "README.zh.md", "docs/python.md", "docs/quick-start.md"])
def test_an_example_with_its_imports_runs(page: str) -> None:
    examples = [block for block in blocks(page, "python") if "import" in block]
    assert examples
    for code in examples:
        exec(compile(code, page, "exec"), {})


@pytest.mark.parametrize(
    ("page", "has", "file"),
    [
        ("docs/python.md", "back1", "refllm/blocks/feed_forward.py"),
        ("README.md", "attention_back", "refllm/spec/attention.py"),
    ],
)
def test_what_is_printed_of_a_file_stands_in_it(page: str, has: str, file: str) -> None:
    (printed,) = [block for block in blocks(page, "python") if has in block]

    def without_types(source: str) -> list[str]:
        plain = re.sub(r": Array|: Tree| -> [^:]+(?=:\n)", "", source)
        return [line.strip() for line in plain.splitlines() if line.strip()]

    lines = without_types(printed)
    assert len(lines) >= 7
    there = without_types(text_of(file))
    assert any(there[i] == lines[0] and [x for x in there[i:] if x in lines][: len(lines)] for i in range(len(there)))
    assert set(lines) <= set(there)


@pytest.mark.parametrize("page", ["README.md", "docs/quick-start.md"])
def test_the_verifier_says_what_is_printed(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = [block for block in blocks(page, "python") if "def attention(" in block]
    (printed,) = [block for block in blocks(page, "") if "spec/attention.py:" in block]
    (tmp_path / "my_attention.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    patient = ["--search", "120"]  # on a machine that is busy the search needs more than its ten seconds
    assert cli.main(["verify", "my_attention.py", "--values", "--only", "attention", *patient]) == 1
    rounding = re.compile(r"to \d(\.\d+)?e-\d+|= \S+ times")  # the size of a rounding error is the machine's
    output = rounding.sub("", " ".join(capsys.readouterr().out.split()))
    assert rounding.sub("", " ".join(printed.split())) in output


def figures(page: str) -> list[str]:
    """The numbers in the sentences of a page; they may stand anywhere in one."""
    words = re.sub(r"`[^`]*`|\]\([^)]*\)", "", prose(page))
    return sorted(re.findall(r"\d[\d,.]*\d|\d", words))


def links(page: str) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)]*)\)", text_of(page)) if not link.startswith("README")]


def test_the_chinese_readme_has_the_same_commands_numbers_and_links() -> None:
    assert [*fenced("README.zh.md")] == [*fenced("README.md")]
    assert sorted(inline("README.zh.md")) == sorted(inline("README.md"))
    assert links("README.zh.md") == links("README.md")
    assert figures("README.zh.md") == figures("README.md")


def test_no_paragraph_of_the_chinese_readme_is_broken_into_lines() -> None:
    """A line break shows as a space, which Chinese does not have between words."""
    lines = prose("README.zh.md").splitlines()
    broken = [line for before, line in pairwise(lines) if before and line and not line.startswith("* ")]
    assert broken == []


def test_every_link_of_the_readme_leads_to_a_file() -> None:
    for page in ("README.md", "README.zh.md"):
        for link in links(page):
            assert (ROOT / link.partition("#")[0]).exists(), link


def test_no_number_of_the_transcript_differs_from_the_whole_one() -> None:
    """README shows lines of the tutorial's transcript."""
    whole = set(text_of("docs/training.md").splitlines())
    (shown,) = [block for block in blocks("README.md", "") if "tokens/s" in block]
    assert len(shown.splitlines()) == 10
    assert set(shown.splitlines()) <= whole
