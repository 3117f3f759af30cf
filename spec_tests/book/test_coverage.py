"""Laws of the check that nothing is missing: whatever is taken away is missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from book import coverage, golden, mistakes, text
from book.coverage import Place, Planned, Record
from refllm.spec.registers import errata, sources

pytestmark = pytest.mark.every  # the check of the book asks the same of the real one
HERE = Place("book/all", "here", "all")
DOCS = Path(__file__).resolve().parents[2] / "docs"


def whole() -> Record:
    """A book that shows everything, on one page."""
    record = Record()
    for name in sources().entries:
        record.ids[name] = HERE
        for kind in ("code", "cases", "mistakes", "sources", "laws"):
            record.add(kind, HERE.page, name)
    record.operations = dict.fromkeys(text.operations(), HERE)
    record.errata = dict.fromkeys(errata(), HERE)
    record.figures = {figure.what: HERE for figure in sources().figures}
    for kind in ("example", "steps"):
        record.add(kind, HERE.page)
    return record


def test_nothing_is_missing_from_a_whole_book() -> None:
    assert list(coverage.holes(whole(), [])) == []


@pytest.mark.parametrize(
    ("where", "name"),
    [("ids", "ATT"), ("ids", "GEN"), ("operations", "attention"), ("errata", "E5"), ("figures", "sizes of models")],
)
def test_what_has_no_place_is_missed(where: str, name: str) -> None:
    record = whole()
    del getattr(record, where)[name]
    (hole,) = coverage.holes(record, [])
    assert name in hole


@pytest.mark.parametrize(
    ("kind", "name"), [("code", "NGRAM"), ("cases", "ATT"), ("mistakes", "LN"), ("sources", "STOP"), ("laws", "SMX")]
)
def test_an_id_without_what_belongs_to_it_is_missed(kind: str, name: str) -> None:
    record = whole()
    record.shown[kind].discard(name)
    (hole,) = coverage.holes(record, [])
    assert hole.startswith(name)


@pytest.mark.parametrize("kind", ["example", "steps"])
def test_a_page_without_example_or_derivation_is_told(kind: str) -> None:
    record = whole()
    record.on_page[HERE.page].discard(kind)
    assert any(f"{{{kind}}}" in hole for hole in coverage.holes(record, []))


def test_two_places_of_an_id_are_told() -> None:
    record = Record()
    for page in ("one", "two"):
        record.place(record.ids, "ATT", Place(page, "here", "x"))
    assert "ATT has two places: one and two" in list(coverage.holes(record, []))


def test_what_is_planned_is_not_missed_but_named() -> None:
    record = whole()
    for name in ("LN", "FFN"):
        del record.ids[name]
    del record.operations["layer_norm"]
    plans = [Planned("book/blocks", ("LN",))]
    assert [hole.split()[0] for hole in coverage.holes(record, plans)] == ["FFN"]
    assert coverage.still_missing(plans, record) == ["book/blocks: LN"]


def test_a_plan_that_is_none_any_more_is_told(tmp_path: Path) -> None:
    (tmp_path / "written.md").write_text("# All of it\n")
    (tmp_path / "unwritten.md").write_text(f"# Later\n\n{coverage.UNWRITTEN}\n")
    plans = [
        Planned("written", ()), Planned("unwritten", ("ATT", "NONE"), ("no_operation",)), Planned("gone", ())
    ]  # fmt: skip
    said = list(coverage.stale(plans, whole(), tmp_path))
    assert [line for line in said if "written is written" in line]
    assert len(said) == 5
    assert any("gone" in line for line in said)


def test_a_chapter_that_is_planned_is_unwritten_and_what_is_unwritten_is_planned() -> None:
    plans = coverage.planned(DOCS / "book/planned.toml")
    unwritten = {
        f"book/{path.stem}"
        for path in (DOCS / "book").glob("*.md")
        if coverage.UNWRITTEN in path.read_text(encoding="utf-8")
    }
    assert {plan.page for plan in plans if not coverage.waits(plan)} <= unwritten <= {plan.page for plan in plans}


def test_a_written_chapter_may_wait_for_the_text_of_an_id_and_for_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "written.md").write_text("# All of it\n")
    without, of = next(name for name, entry in sources().entries.items() if not entry.code), text.operations_of
    monkeypatch.setattr(text, "operations_of", lambda name: [] if name == without else of(name))  # as if it had none
    record = whole()
    del record.ids[without]
    assert list(coverage.stale([Planned("written", (without,))], record, tmp_path)) == []
    for plan in (Planned("written", (without,), ("softmax",)), Planned("written", (without,), (), ("a number",))):
        assert list(coverage.stale([plan], record, tmp_path))
    del record.ids["ATT"]
    assert list(coverage.stale([Planned("written", (without, "ATT"))], record, tmp_path))


@pytest.mark.parametrize("find", [golden.of, mistakes.of])
def test_an_id_and_an_operation_have_their_cases_and_mistakes(find: Any) -> None:
    assert find("ATT-MASK")
    assert {each.id for each in find("ATT-MASK")} <= {each.id for each in find("attention")}
    assert find("NOTHING") == []
