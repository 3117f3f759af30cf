"""Laws of the check that everything is reached from the register: whatever is taken away is missed."""

from __future__ import annotations

from pathlib import Path

import pytest

from book import clicks
from refllm.spec.registers import errata, sources

SECTIONS = ("laws", "golden-cases", "usual-mistakes", "sources")
ASKED = [
    clicks.Wanted("ATT-MASK", "id-att-mask", SECTIONS, ("code", "example", "derivation")),
    clicks.Wanted("E3", "erratum-e3"),
]
REGISTER = '<a href="book/x.html#id-att-mask">ATT-MASK</a><a href="book/x.html#erratum-e3">E3</a>'
PAGE = """<p id="id-att-mask">ATT-MASK</p><a href="../text/attention.html#line-7">text</a>
<div class="highlight-pycon"></div>
<table class="book-table book-steps"></table><section id="laws-att-att-mask-mha"></section>
<section id="golden-cases-att-att-mask-mha"></section><section id="usual-mistakes-att-att-mask-mha"></section>
<section id="sources-att-att-mask-mha"></section><table id="erratum-e3"></table>"""


def faults(folder: Path, register: str, page: str) -> list[str]:
    (folder / "book").mkdir()
    (folder / "register.html").write_text(register)
    (folder / "book/x.html").write_text(page)
    return list(clicks.faults(folder, ASKED))


def test_a_whole_book_has_no_fault(tmp_path: Path) -> None:
    assert faults(tmp_path, REGISTER, PAGE) == []


@pytest.mark.parametrize(
    ("taken", "says"),
    [
        ('<a href="../text/attention.html#line-7">text</a>', "no code"),
        ('<div class="highlight-pycon"></div>', "no example"),
        ("book-steps", "no derivation"),
        *((f'<section id="{name}-att-att-mask-mha"></section>', f"no section {name}") for name in SECTIONS),
        ('<p id="id-att-mask">', "no place id-att-mask"),
        ('<table id="erratum-e3"></table>', "no place erratum-e3"),
    ],
)
def test_what_is_taken_from_the_page_is_missed(tmp_path: Path, taken: str, says: str) -> None:
    (fault,) = faults(tmp_path, REGISTER, PAGE.replace(taken, "", 1))
    assert says in fault


def test_a_section_of_others_does_not_count(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, REGISTER, PAGE.replace("laws-att-att-mask-mha", "laws-att-mha"))
    assert "no section laws" in fault


def test_a_link_that_the_register_lacks_is_missed(tmp_path: Path) -> None:
    (fault,) = faults(tmp_path, REGISTER.replace("#id-att-mask", "#id-att"), PAGE)
    assert fault == "register.html leads to no place of ATT-MASK"


def test_a_book_without_a_register_is_a_fault(tmp_path: Path) -> None:
    assert list(clicks.faults(tmp_path, ASKED)) == ["there is no register.html"]


@pytest.mark.slow
def test_all_of_the_parts_a_to_d_are_asked_for() -> None:
    wanted = list(clicks.wanted())
    asked = {each.name for each in wanted}
    assert asked >= {name for name, entry in sources().entries.items() if entry.part in "AB"}
    assert asked >= {*errata(), *(figure.what for figure in sources().figures)}
    (attention,) = (each for each in wanted if each.name == "ATT")
    assert attention.sections == SECTIONS
    assert attention.on_page == ("code", "example", "derivation")
