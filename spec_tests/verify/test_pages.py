"""The report as files: JUnit counts the same cases, and the page is whole and safe."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from refllm.errors import UserError
from refllm.verify import pages
from refllm.verify.report import Report
from refllm.verify.report_data import as_data


def test_junit_counts_the_same_cases(report: Report, tmp_path: Path) -> None:
    pages.write_junit(tmp_path / "junit.xml", report)
    root = ET.parse(tmp_path / "junit.xml").getroot()
    tests = root.findall("testsuite/testcase")
    assert len(tests) == len(report.results)
    broken = sum(test.find("failure") is not None or test.find("error") is not None for test in tests)
    data = as_data(report)
    assert broken == data["failed"] + data["dtype"] + data["convention"]
    assert sum(test.find("skipped") is not None for test in tests) == data["skipped"] + data["value_only"]
    assert all(float(test.get("time", "")) >= 0 for test in tests)
    assert sum(float(test.get("time", "")) for test in tests) > 0
    assert any("scale" in (failure.text or "") for test in tests for failure in test.findall("failure"))
    kinds = {test.get("name"): test.find("properties/property").get("value") for test in tests}  # type: ignore[union-attr]
    assert kinds == {name: result["verdict"] for name, result in data["results"].items()}


def test_the_page_is_whole_and_what_an_implementation_says_cannot_write_into_it(report: Report, tmp_path: Path) -> None:
    pages.write_page(tmp_path / "page.html", report)
    text = (tmp_path / "page.html").read_text()
    assert "&lt;no &amp; luck&gt;" in text
    assert "<no" not in text
    assert "ATT/square" in text
    HTMLParser().feed(text)


def test_the_page_says_how_many_wrong_answers_a_mistake_explains_and_its_addresses_are_links(
    report: Report, tmp_path: Path
) -> None:
    pages.write_page(tmp_path / "page.html", report)
    text = (tmp_path / "page.html").read_text()
    assert re.search(r"\d+ of \d+ wrong answers are explained by attention without the 1/√d_k scale", text)
    bare = re.sub(r'<a href="[^"]*">[^<]*</a>', "", text)
    assert "https://" not in bare
    assert "<a href=" in text


def test_a_report_replaces_a_report_and_nothing_else(report: Report, tmp_path: Path) -> None:
    precious = tmp_path / "mine.py"
    precious.write_text("def relu(x): ...")
    for write in (pages.write_junit, pages.write_page):
        with pytest.raises(UserError, match="is there already and is no report"):
            write(precious, report)
        write(tmp_path / "report", report)
        write(tmp_path / "report", report)
        (tmp_path / "report").unlink()
    assert precious.read_text() == "def relu(x): ..."
