"""Every command line that stands in a page works. Here those of refllm; `test_script_lines` has the others.

A line is carried out small: of few steps, or of one operation where every case is asked for. What cannot be run stands
in `spec_tests/lines_elsewhere.py` with the test that does it, or with the reason why there is none.
"""

from __future__ import annotations

import importlib.util
import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refllm import cli
from spec_tests.commands.conftest import leave_the_allocator_alone
from spec_tests.furnished import carried_out, expected, filled, furnish, prepared, small, tool_for
from spec_tests.lines_elsewhere import ELSEWHERE, NOT_HERE, is_elsewhere, matches
from spec_tests.test_script_lines import SCRIPTS
from spec_tests.written_pages import COMMANDS, PAGES, ROOT, Line, blocks, commands, parser_for

LINES = [line for page in PAGES for line in commands(page)]
OWN = [line for line in LINES if line.words[0] == "refllm" and line.words[1:2] != ["install"] and "|" not in line.words]
RUN = [
    line for line in dict.fromkeys(OWN)
    if not line.is_name and not is_elsewhere(line) and line.page != "README.zh.md"
]  # fmt: skip  # README.zh.md has the lines of README.md: spec_tests/test_readme.py


@pytest.mark.one_in(8)
@pytest.mark.parametrize("line", dict.fromkeys(OWN), ids=lambda line: f"{line.page}: {line.text}")
def test_every_command_and_flag_of_a_page_is_there(line: Line) -> None:
    words = line.words
    if words[1].isupper():  # TASK, ARGS
        return
    if words[1].startswith("--"):
        assert words[1] in cli.parser(None)._option_string_actions
        return
    assert words[1] in cli.COMMANDS
    known = parser_for(words)._option_string_actions
    for flag in (word for word in words[2:] if word.startswith("--")):
        assert flag in known, flag
        if (choices := known[flag].choices) and flag != words[-1]:
            value = words[words.index(flag) + 1]
            assert value in [*choices] or value.isupper()


def test_every_line_is_run_or_stands_among_those_that_are_not() -> None:
    run = {*RUN, *SCRIPTS}
    missed = {line.text for line in LINES if line not in run and not is_elsewhere(line) and not line.is_name}
    assert {text for text in missed if not any(text == line.text for line in run)} == set()


def test_a_command_that_is_only_named_is_run_by_another_line() -> None:
    run = {tuple(filled(line).words[1 : 2 + line.has_verb]) for line in RUN}
    named = [line for line in OWN if line.is_name]
    assert len(named) > 5
    assert {tuple(line.words[1 : 2 + line.has_verb]) for line in named} <= run


PROGRAM_LINE = re.compile(r"\$ |\./|(?:python|pytest|pip|cc|cd|cp|git|npm|node|go|cargo|sh|bash|curl|apt) ")


def test_no_command_of_a_block_is_overlooked() -> None:
    overlooked = []
    for page in PAGES:
        known = {line.text for line in commands(page)}
        lines = (line for code in blocks(page, "") for line in code.splitlines() if PROGRAM_LINE.match(line))
        bare = [re.split(r" {2,}", line)[0].removeprefix("$ ") for line in lines]
        overlooked += [line for line in bare if line not in known and not any(map(line.startswith, ELSEWHERE))]
    assert overlooked == []


def test_what_runs_elsewhere_has_a_test() -> None:
    for begins, place in ELSEWHERE.items():
        file, _, name = place.partition("::")
        wanted = f"def {name}(" if file.endswith(".py") else name
        assert wanted in (ROOT / file).read_text(encoding="utf-8"), begins


def test_nothing_is_excepted_that_no_page_has() -> None:
    for begins in NOT_HERE:
        assert any(matches(begins, line) for line in LINES), begins


@pytest.mark.parametrize(("begins", "reason"), NOT_HERE.items())
def test_a_line_that_cannot_be_run_here(begins: str, reason: str) -> None:
    pytest.skip(f"{begins}: {reason}")


def test_there_are_commands_in_the_pages_for_users() -> None:
    pages = {"README.md", "docs/training.md", "docs/tasks.md", "docs/quick-start.md", "docs/explain.md", COMMANDS}
    assert pages <= {line.page for line in RUN}


@pytest.fixture
def furnished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    leave_the_allocator_alone(monkeypatch)
    monkeypatch.setenv("COLUMNS", "80")
    furnish(tmp_path)
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    return tmp_path


QUICK = {"README.md"}


def pages() -> Iterator[Any]:
    for page in dict.fromkeys(line.page for line in RUN):
        yield pytest.param(page, marks=() if page in QUICK else pytest.mark.every)


@pytest.mark.parametrize("page", [*pages()])
def test_the_commands_of_a_page_work_one_after_the_other(
    page: str, furnished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in (filled(line) for line in RUN if line.page == page):
        if (tool := tool_for(line)) and shutil.which(tool) is None:
            continue
        prepared(line, furnished)
        words = small(line.words)
        if "--picture" in words and importlib.util.find_spec("matplotlib") is None:
            del words[words.index("--picture") : words.index("--picture") + 2]
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"How many?\n")))
        status, said = carried_out(words)
        assert status in expected(words), f"{line.text}\n{words}\n{said}"
    shutil.rmtree(furnished / "runs", ignore_errors=True)
