"""Every citation in the repository is in the registers, every entry has its code, and every erratum what shows it."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import re
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from refllm import cli
from refllm.spec.registers import Paper, Sources, errata, sources
from spec_tests.operations import operation_functions
from spec_tests.spec import citations
from spec_tests.spec.citations import document_faults, errata_cited, faults, papers_cited

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).relative_to(ROOT)
ERRATA = Path("refllm/spec/errata.toml"), Path("docs/zh/errata.toml")  # print wrong citations
SOURCES = Path("refllm/spec/sources.toml")  # is what citations are compared with
FOLDERS = ("refllm", "scripts", "spec_tests", "docs", "golden", ".ci")
WRITTEN = {"", ".py", ".md", ".json", ".toml", ".c", ".h", ".js", ".yml", ".html", ".txt"}
ID = r"[A-Z][A-Z0-9]*(?:-[A-Z0-9]+)*"
NAMED = re.compile(rf"({ID})(?: (?:in|without) [a-z]+| \([^()]*\))?")  # an ID, and in which form


def written_files() -> list[Path]:
    """The texts of the repository, relative to it."""
    found = [path for path in ROOT.iterdir() if path.suffix in {".md", ".toml"}]
    found += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in WRITTEN]
    return sorted(
        path.relative_to(ROOT) for path in found if path.is_file() and "__pycache__" not in path.relative_to(ROOT).parts
    )


@functools.cache
def docstrings(path: Path) -> list[tuple[str, str]]:
    """Name and docstring of the module and all that is defined in it."""
    return [
        (getattr(node, "name", "the module"), text)
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node))
    ]


def ids_at_the_head(docstring: str) -> list[str]:
    """`LMHEAD, LINEAR without bias: y` has two. Other words may follow the first: `CE, label smoothing: y`."""
    head, colon, _ = docstring.partition(":")
    first, *others = [NAMED.fullmatch(part) for part in head.split(", ")]
    return [found[1] for found in (first, *others) if found] if colon and first else []


def golden_cases() -> list[dict[str, Any]]:
    files = sorted((ROOT / "golden").glob("L*/*.json"))
    return [case for path in files for case in json.loads(path.read_text(encoding="utf-8"))["cases"]]


FILES = written_files()
PYTHON = [path for path in FILES if path.suffix == ".py" and path.parts[0] in ("refllm", "scripts")]
CASES = golden_cases()


def test_the_repository_is_read() -> None:
    """What follows is not true of nothing."""
    assert {
        "README.md",
        "CONTRIBUTING.md",
        "refllm/ops/attention.py",
        "golden/L1/attention.json",
        "docs/explain.md",
    } <= {path.as_posix() for path in FILES}
    assert len(CASES) > 500
    assert sum(bool(ids_at_the_head(text)) for path in PYTHON for _, text in docstrings(path)) > 150


def test_every_citation_resolves() -> None:
    says = []
    for path in FILES:
        if path not in (HERE, *ERRATA, SOURCES):
            text = (ROOT / path).read_text(encoding="utf-8")
            for fault in faults(text, sources()):
                says.append(f"{path.as_posix()}:{text.count(chr(10), 0, fault.where) + 1}: {fault.says}")
    assert says == [], "\n".join(["cite what is in refllm/spec/sources.toml, or add it there:", *says])


def test_every_id_at_the_head_of_a_docstring_is_registered() -> None:
    known = sources().entries.keys() | sources().levels.keys()
    unknown = [
        (path.as_posix(), name, i)
        for path in PYTHON
        for name, text in docstrings(path)
        for i in ids_at_the_head(text)
        if i not in known
    ]
    assert unknown == [], "add the ID to refllm/spec/sources.toml"


def test_every_operation_has_an_id_at_its_head() -> None:
    """In its plain text and in its fast form."""
    operations = {function.__name__ for function in operation_functions()}
    texts = [
        (path.as_posix(), name, text)
        for path in PYTHON
        if path.parts[:2] in (("refllm", "ops"), ("refllm", "spec"))
        for name, text in docstrings(path)
        if name in operations
    ]
    assert {name for _, name, _ in texts} == operations
    assert [(path, name) for path, name, text in texts if not ids_at_the_head(text)] == []


def test_every_golden_case_has_a_registered_id() -> None:
    assert {case["spec"] for case in CASES} <= sources().entries.keys()
    assert [case["id"] for case in CASES if case["id"].split("/")[0] != case["spec"]] == []


def test_every_formula_and_system_of_the_documents_has_its_code() -> None:
    heads = {
        i for path in PYTHON if path.parts[0] == "refllm" for _, text in docstrings(path) for i in ids_at_the_head(text)
    }
    missing = [e.id for e in sources().entries.values() if e.part in "AB" and e.id not in heads and not e.code]
    assert missing == []


def test_the_code_of_an_entry_exists() -> None:
    for entry in sources().entries.values():
        for name in entry.code:
            assert exists(name), f"{entry.id}: there is no {name}"


def exists(name: str) -> bool:
    """A module, a name that one defines, or, of `refllm.commands.NAME`, a command."""
    if name.startswith("refllm.commands."):
        return name.removeprefix("refllm.commands.") in cli.COMMANDS
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute) or find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def test_the_registers_themselves_cite_what_they_list() -> None:
    cited = [(e.id, e.documents, " ; ".join(e.primary)) for e in sources().entries.values()]
    cited += [(f.what, f.documents, "") for f in sources().figures]
    cited += [(e.id, e.documents, " ; ".join((e.holds, e.why))) for e in errata().values()]
    for name, documents, papers in cited:
        if documents:
            assert re.match(r"00\d", documents), name
        says = [f.says for f in document_faults(f"documents {documents}", sources())]
        assert says + [f.says for f in faults(papers, sources())] == [], name


def test_every_formula_of_the_documents_says_where_and_every_later_one_from_whom() -> None:
    for entry in sources().entries.values():
        assert entry.documents or entry.part not in "AB", entry.id
        assert entry.primary or entry.part != "E" or entry.id == "ACCUM", entry.id  # whose source is a bug report


def test_no_identifier_and_no_work_is_listed_twice() -> None:
    papers = sources().papers
    for kind in ("arxiv", "acl", "doi"):
        values = [getattr(paper, kind) for paper in papers if getattr(paper, kind)]
        assert len(values) == len(set(values)), kind
    assert len({(p.authors, p.year, p.title) for p in papers}) == len(papers)
    assert len({p.title for p in papers}) == len(papers)


def test_an_arxiv_number_is_not_of_a_later_year_than_its_paper() -> None:
    for paper in sources().papers:
        if paper.arxiv:
            assert 2000 + int(paper.arxiv[:2]) <= paper.year <= 2000 + int(paper.arxiv[:2]) + 2, paper.title


def test_every_erratum_is_numbered_in_order_and_shown() -> None:
    assert list(errata()) == [f"E{n}" for n in range(1, len(errata()) + 1)]
    cases = {case["id"]: case.get("erratum") for case in CASES}
    for erratum in errata().values():
        assert erratum.shown_by, erratum.id
        for shown in erratum.shown_by:
            kind, _, name = shown.partition(" ")
            if kind == "case":
                assert name in cases, f"{erratum.id}: there is no case {name}"
            else:
                assert kind == "test"
                assert has_test(name), f"{erratum.id}: there is no test {name}"
    wanted = {(number, case) for case, number in cases.items() if number}
    assert wanted <= {(e.id, s.removeprefix("case ")) for e in errata().values() for s in e.shown_by}


def has_test(name: str) -> bool:
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8")) if (ROOT / path).is_file() else ast.parse("")
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in tree.body)


@pytest.mark.every
def test_every_erratum_is_named_where_it_matters() -> None:
    """By a docstring, a case or a test."""
    read = [path for path in FILES if path not in (HERE, *ERRATA, SOURCES) and path.suffix in {".py", ".json"}]
    named = set().union(*(errata_cited((ROOT / path).read_text(encoding="utf-8")) for path in read))
    assert errata().keys() - named == set()


def test_every_document_is_cited() -> None:
    cited = {
        place.document
        for path in PYTHON
        for text in [citations.unwrapped((ROOT / path).read_text(encoding="utf-8"))]
        for _, places in citations.documents_cited(text)
        for place in places
    }
    assert cited == sources().documents.keys()


def test_a_citation_of_documents_names_the_place() -> None:
    bare = []
    for path in PYTHON:
        text = citations.unwrapped((ROOT / path).read_text(encoding="utf-8"))
        cited = [place for _, places in citations.documents_cited(text) for place in places]
        bare += [(path.as_posix(), place.document) for place in cited if not str(place)]
    assert bare == [], "say `documents 001 ch. 1`, not `documents 001`"


@pytest.mark.every
def test_papers_that_nothing_cites_are_not_listed() -> None:
    read = [path for path in FILES if path not in (HERE, SOURCES)]
    texts = [citations.unwrapped((ROOT / path).read_text(encoding="utf-8")) for path in read]
    texts += ["; ".join(entry.primary) for entry in sources().entries.values()]
    cited: list[Paper] = []
    for text in texts:
        for found in citations.PAPER.finditer(text):
            for year in filter(None, (found[2], found[3])):
                cited += papers_cited(re.sub(r"\s+", " ", found[1]), int(year), sources())
    assert [paper.title for paper in sources().papers if paper not in cited] == []


def test_the_registers_are_part_of_the_package() -> None:
    """A wheel has them: setuptools takes what package-data names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "spec/*.toml" in project["tool"]["setuptools"]["package-data"]["refllm"]


# ---- the test tested: planted citations, each wrong in one thing

RIGHT = [
    "documents 001 ch. 4 sec. 1, 2; 002 sec. 3.1 and 4.1, 003 sec. 4.1 (code); Vaswani et al. 2017 (arXiv:1706.03762)",
    "documents 000 sec. 4.4 Q3, sec. 9 Q5; 001 Q8, ch. 3 sec. 2.2",
    "documents 001, 002 sec. 3.1 step 3 (the two maps), sec. 4.2 (h_t W + b).",
    "documents 002\n    # sec. 4.2: P(x)",
    'says = "documents 002 "\n    "sec. 4.2"',
    "Devlin et al. 2019 (N19-1423, arXiv:1810.04805) sec. 3",
    "Touvron et al. 2023 (arXiv:2302.13971 sec. 2.2, arXiv:2307.09288 sec. 2.2)",
    "Gers et\n             al. 2000; Milakov &\n    Gimelshein 2018 (arXiv:1805.02867); Radford et al. 2018 and 2019",
    "Radford 2018, 2019; Su et al. 2021, 2048 tokens; Radford et al. 2018, 2019 and others",
    "Vaswani 2017; van den Oord 2018; in June 2017; NumPy 2.4; erratum E1 and errata E2, E3",
    "(Zhang et al. 2024, arXiv:2401.02385 sec. 2.2)",
]
WRONG = {
    "documents 005 sec. 1": "documents 005: there is no such document in sources.toml",
    "| Elman 1990; 003 sec. 4.1, 5.9 |": "documents 003: there is no sec. 5.9",
    "documents 002 sec. 3.9": "documents 002: there is no sec. 3.9",
    "documents 001, 002 sec. 3.1, 4.7": "documents 002: there is no sec. 4.7",
    "documents 000 sec. 9 Q6": "documents 000: there is no sec. 9 Q6",
    "documents 001 sec. 2.4": "documents 001: sec. 2.4 may be ch. 3 sec. 2.4, ch. 5 sec. 2.4, ch. 8 sec. 2.4",
    "documents 001 ch. 12": "documents 001: there is no ch. 12",
    "documents 003, 4.3": "documents 003: 4.3 is no section without `sec.` before it",
    "documents\n    # 002 sec. 7": "documents 002: there is no sec. 7",
    "Su et al. 2021 (arXiv:2104.09865)": "arXiv:2104.09865 is not among the papers of sources.toml",
    "Su et al. 2022 (arXiv:2104.09864)": "Su et al. 2022 is not among the papers of sources.toml",
    "Press et al. 2022 (arXiv:2104.09864)": "arXiv:2104.09864 is Su et al. 2021 and not Press et al. 2022",
    "Press & Wolf 2022 (arXiv:2108.12409)": "Press & Wolf 2022 is not among the papers of sources.toml",
    "see arXiv:2104.09864": "arXiv:2104.09864 stands without the authors and the year of its paper before it",
    "https://arxiv.org/abs/2104.09864": "arxiv.org/abs/2104.09864 stands without the authors",
    "Devlin et al. 2019 (N19-1194)": "N19-1194 is not among the papers of sources.toml",
    "Su et al. 2021 and more; (arXiv:2104.09864)": "arXiv:2104.09864 stands without the authors",
    "Radford 2018, 2017;": "Radford 2017 is not among the papers of sources.toml",
    "Nobody 2017": "Nobody 2017 is not among the papers of sources.toml",
    "(erratum E99)": "erratum E99 is not in errata.toml",
    '"erratum": "E99"': "erratum E99 is not in errata.toml",
    "generation that starts late (E97)": "erratum E97 is not in errata.toml",
    "errata E1, E98": "erratum E98 is not in errata.toml",
}


@pytest.mark.parametrize("text", RIGHT)
def test_a_right_citation_is_no_fault(text: str) -> None:
    assert [fault.says for fault in faults(text, sources())] == []


@pytest.mark.parametrize(("text", "says"), WRONG.items())
def test_a_planted_wrong_citation_is_caught(text: str, says: str) -> None:
    assert any(fault.says.startswith(says) for fault in faults(text, sources())), says


def test_a_fault_is_found_at_its_line() -> None:
    text = "one\ntwo documents\n    002 sec. 8.8\n"
    assert [text.count("\n", 0, fault.where) for fault in faults(text, sources())] == [1]


def test_a_changed_register_is_noticed() -> None:
    """Without its section, its paper or with another year, what cites them is at fault."""
    whole = sources()
    without = Sources(whole.levels, whole.papers[:1], whole.entries, whole.figures, {})
    assert len(list(faults("documents 002 sec. 3.1; Vaswani et al. 2017 (arXiv:1706.03762)", without))) == 3


def test_heads_of_docstrings_are_told_from_other_words() -> None:
    assert ids_at_the_head("MHA, T5-REL: y = x") == ["MHA", "T5-REL"]
    assert ids_at_the_head("SWITCH in use, LMHEAD: the logits") == ["SWITCH", "LMHEAD"]
    assert ids_at_the_head("LMHEAD, LINEAR without bias: y = x W") == ["LMHEAD", "LINEAR"]
    assert ids_at_the_head("T5-REL, RMS norm: y = g n") == ["T5-REL"]
    assert ids_at_the_head("HYBRID (documents 003 sec. 4.3): layers") == ["HYBRID"]
    assert ids_at_the_head("The logits: y") == ids_at_the_head("y = x W") == ids_at_the_head("A map, LN: y") == []


def test_what_does_not_exist_is_told() -> None:
    assert exists("refllm.commands.train")
    assert exists("refllm.models.gpt.forward")
    assert exists("refllm.models.gpt")
    assert not any(map(exists, ("refllm.commands.labels", "refllm.models.gpt.forwards", "refllm.nothing.x")))
    assert has_test("spec_tests/models/test_gpt.py::test_the_gradient_of_the_keys_bias_is_zero")
    assert not has_test("spec_tests/models/test_gpt.py::test_nothing")
    assert not has_test("spec_tests/models/test_nothing.py::test_nothing")
