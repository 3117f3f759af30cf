"""Laws of the notes of the golden files: what they say of cases and mistakes is so, and a report shows their links."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import refllm.verify.notes as notes_module
from refllm.ops.softmax import softmax as right
from refllm.verify import mutants, runner
from refllm.verify.adapter import Functions
from refllm.verify.corpus import Corpus
from refllm.verify.corpus import folder as golden_folder
from refllm.verify.corpus import load as load_corpus
from refllm.verify.kills import kills
from refllm.verify.report import Report
from refllm.verify.report_data import as_data
from refllm.verify.report_text import as_text
from refllm.verify.tensors import MalformedError
from spec_tests.verify.folder import Folder

GOLDEN = golden_folder(None)
SAID: dict[str, Any] = json.loads((GOLDEN / notes_module.FILE).read_text(encoding="utf-8"))
TOLD = notes_module.read(GOLDEN)
BANK = {mutant.id: mutant for mutant in mutants.MUTANTS}


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return load_corpus(GOLDEN)


def test_the_notes_are_as_their_schema_says() -> None:
    jsonschema: Any = pytest.importorskip("jsonschema")
    schema = json.loads((GOLDEN / "schemas/notes.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(SAID, schema)
    assert {name for names in TOLD.cases.values() for name in names} == set(TOLD.notes)
    assert {note["effect"] for note in SAID["notes"]} == set(range(len(SAID["effects"])))


def test_every_case_that_has_notes_is_there(corpus: Corpus) -> None:
    assert set(TOLD.cases) <= set(corpus.cases)


def test_every_mistake_of_the_bank_has_a_note() -> None:
    missing = sorted(BANK.keys() - TOLD.notes.keys())
    assert missing == [], f"python scripts/make_notes.py writes which cases find {', '.join(missing)}"


def test_every_public_report_of_the_bank_is_told() -> None:
    cited = {mutant.id: mutant.issue for mutant in mutants.MUTANTS if mutant.issue is not None}
    assert {name: issue for name, issue in cited.items() if issue not in TOLD.notes[name]["links"]} == {}


def test_what_a_note_says_of_a_mistake_is_what_the_bank_says() -> None:
    said = {name: note["mistake"] for name, note in TOLD.notes.items() if name in BANK}
    assert said == {name: BANK[name].about for name in said}


@pytest.mark.every
@pytest.mark.parametrize("seed", range(3))
def test_mistakes_fail_the_cases_under_which_they_stand_and_no_other(corpus: Corpus, seed: int) -> None:
    """A sample; scripts/make_notes.py makes all. On the lowest level that a mistake fails, the list is whole."""
    drawn = random.Random(seed).sample(sorted(set(TOLD.notes) & set(BANK)), 12)
    known = [case for name, case in corpus.cases.items() if name in TOLD.cases and case.level < 3]
    told = {name: {case for case in TOLD.cases if name in TOLD.cases[case]} for name in drawn}
    lowest = {name: min(corpus.cases[case].level for case in cases) for name, cases in told.items()}
    low = [BANK[name] for name in drawn if lowest[name] < 3]
    for name, kill in kills(low, known, "float64", corpus.C).items():
        found = {case.id for case in kill.cases if case.level == kill.level}
        assert found == {case for case in told[name] if corpus.cases[case].level == kill.level}, name
    assert len(low) > 4


def test_a_folder_without_notes_has_none(tmp_path: Path) -> None:
    assert notes_module.read(tmp_path).links("ATT/square", set(), value_right=False) == []


@pytest.mark.parametrize(
    "text",
    ["[]", "{", '{"format": 1, "effects": [], "notes": [], "cases": {}}', '{"format": 2, "notes": [], "cases": {}}',
     '{"format": 2, "effects": [], "notes": {}, "cases": {}}',
     '{"format": 2, "effects": [], "notes": [{}], "cases": {}}',
     '{"format": 2, "effects": [], "notes": [{"id": "A/a", "links": [], "effect": 0}], "cases": {}}',
     '{"format": 2, "effects": [], "notes": [], "cases": {"A/a": [0]}}',
     '{"format": 2, "effects": [], "notes": [], "cases": {"A/a": 1}}'],
)  # fmt: skip
def test_notes_that_are_not_whole_are_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / notes_module.FILE).write_text(text)
    with pytest.raises(MalformedError, match=notes_module.FILE) as raised:
        notes_module.read(tmp_path)
    assert "\n" not in str(raised.value)


def test_golden_files_with_broken_notes_are_refused_before_anything_runs(folder: Folder) -> None:
    (folder.root / notes_module.FILE).write_text("{")
    with pytest.raises(MalformedError, match=notes_module.FILE):
        load_corpus(folder.root)


LINK, OTHER = "https://reports.example/1", "https://reports.example/2"
NOTES = notes_module.Notes(
    {
        "A/wrong": {"kind": "formula", "links": [LINK]},
        "A/seen": {"kind": "formula", "links": [OTHER]},
        "A/quiet": {"kind": "formula", "links": []},
        "A/back": {"kind": "gradient", "links": ["https://reports.example/3"]},
    },
    {"A/fails": ["A/back", "A/quiet", "A/seen", "A/wrong"], "A/passes": ["A/seen"]},
)


def test_what_a_right_answer_contradicts_is_not_linked() -> None:
    assert NOTES.links("A/fails", set(), value_right=False) == [OTHER, LINK]
    assert NOTES.links("A/fails", {"A/passes"}, value_right=False) == [LINK]


def test_mistakes_of_the_gradient_are_linked_where_the_value_is_right_alone() -> None:
    assert NOTES.links("A/fails", set(), value_right=True) == ["https://reports.example/3"]


def told(corpus: Corpus, wrong: str) -> set[str]:
    """The words of the report on a softmax with a wrong value or gradient, without a diagnosis."""

    def softmax(x: Any) -> Any:
        y, back = right(x)
        return y**1.1 if wrong == "value" else y, (lambda dy: y * (1 - y) * dy) if wrong == "gradient" else back

    cases = [case for case in corpus.cases.values() if case.operation == "softmax"]
    found = list(runner.run(Functions("mine", {"softmax": softmax}, {}), cases, "float64", corpus.C))
    made = Report("mine", "mine.py", "float64", corpus.C, corpus.spec_version, found)
    shown = set(as_text(made).split())
    linked = {link for result in as_data(made)["results"].values() for link in result["links"]}
    assert linked >= {word for word in shown if word.startswith("https://")}
    return shown


def test_a_report_links_to_reports_of_what_fails_and_to_none_where_all_is_right(corpus: Corpus) -> None:
    kinds = {link: note["kind"] for note in TOLD.notes.values() for link in note["links"]}
    linked = {wrong: set(kinds) & told(corpus, wrong) for wrong in ("nothing", "value", "gradient")}
    assert linked["nothing"] == set()
    assert linked["gradient"] == set(TOLD.notes["SMX/back-diagonal"]["links"])
    assert "gradient" not in {kinds[link] for link in linked["value"]}
