"""Laws of the build: every fault that a page can have is told, and a page without one is built."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("sphinx", reason="needs the extra docs: ./scripts/test --optional")
pytest.importorskip("myst_parser", reason="needs the extra docs: ./scripts/test --optional")
pytestmark = [
    pytest.mark.optional,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning"),
]

CONF = """
extensions = ["myst_parser", "book.extension"]
myst_enable_extensions = ["dollarmath"]
html_math_renderer = "mathml"
nitpicky = True
"""

RIGHT = """# A page

```{id} ATT
```

$$ y = \\softmax(x\\T) \\d v $$

```{text} attention
```

```{example}
>>> from numpy import ones
>>> x = ones((2, 3))
>>> B, C = x.shape
>>> x.mean()
1.0
```

```{steps}
y = x.sum(axis=1) | B | y_b = \\sum_c x_{bc} | a sum
```

The sum is {value}`y[0] | .1f`.

```{changes} layer_norm rms_norm
```

```{drawn} masks
:alt: Four grids that show which query attends which key.
```

## Evidence

```{evidence} ATT
```

```{erratum} E3
```

[The index](index.md)
"""

FAULTS = {  # what is written, and what of it is told
    "```{example}\n>>> 1 / 3\n0.34\n```": "but computes",
    "```{example}\n>>> no_such_name\n1\n```": "NameError",
    "```{text} no_such_operation\n```": "no_such_operation: defined nowhere",
    "```{text} relu\n:part: derivation\n```\n\n```{text} cut\n:part: back\n```": "cut has no back",
    "```{id} NO-SUCH\n```": "NO-SUCH is no ID",
    "```{steps}\nz = 1 | () | z = 1\n```": "a step has four parts",
    "```{steps}\nz = no_such_name | () | z | because\n```": "NameError",
    "```{example}\n>>> N = 3\n>>> w = [1, 2]\n```\n\n```{steps}\nz = w | N | z | because\n```": "has the shape (2,)",
    "$$ \\nosuchcommand $$": "nosuchcommand",
    "```{drawn} masks\n```": "needs `:alt:`",
    "```{drawn} no_such_figure\n:alt: one two three four five six\n```": "there is no figure no_such_figure",
    "```{erratum} E999\n```": "E999 is not in refllm/spec/errata.toml",
    "```{printed} no such number\n```": "has no figure 'no such number'",
    "```{cases} NO-SUCH\n```": "no golden cases of NO-SUCH",
    "```{mistakes} NO-SUCH\n```": "no known mistakes of NO-SUCH",
    "```{sources} NO-SUCH\n```": "NO-SUCH is no ID",
    "```{sections} 009\n```": "the documents are 000",
    "```{register} Z\n```": "the register has the parts",
    "```{code} refllm.no.such\n```": "there is no refllm.no.such",
    "[a link](no-such-page.md)": "no-such-page",
    "{value}`no_such_name`": "NameError",
}


def built(folder: Path, page: str) -> str:
    """What the build says of a book of this page."""
    from sphinx.cmd.build import build_main

    source, out = folder / "source", folder / "html"
    source.mkdir()
    (source / "conf.py").write_text(CONF)
    (source / "index.md").write_text("# Index\n\n```{toctree}\npage\n```\n")
    (source / "page.md").write_text(page)
    said = folder / "said"
    build_main([
        "-q", "-E", "-n", "-w", str(said), "-d", str(folder / "trees"), "-D", f"book_figures={out / 'figures'}",
        str(source), str(out),
    ])  # fmt: skip
    return "\n".join(line for line in said.read_text().splitlines() if "[book.coverage]" not in line)


def test_a_right_page_is_built_without_a_word(tmp_path: Path) -> None:
    assert built(tmp_path, RIGHT) == ""
    html = (tmp_path / "html/page.html").read_text()
    assert "<math" in html
    assert "The sum is 3.0." in html
    assert re.search(r"lines \d+–\d+", html)
    assert (tmp_path / "html/text/attention.html").is_file()
    assert (tmp_path / "html/figures/masks-dark.svg").is_file()


def test_every_fault_of_a_page_is_told(tmp_path: Path) -> None:
    said = built(tmp_path, "# A page\n\n" + "\n\n".join(FAULTS))
    assert [words for words in FAULTS.values() if words not in said] == []


def test_a_book_that_lacks_something_is_built_as_a_draft_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What ./scripts/docs does with each of its flags, on a book of one page, which lacks the other chapters."""
    from book import __main__ as book

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/conf.py").write_text(CONF + 'suppress_warnings = ["book.coverage"]\n')
    (tmp_path / "docs/index.md").write_text("# Index\n\n```{toctree}\npage\n```\n")
    (tmp_path / "docs/page.md").write_text(RIGHT)
    monkeypatch.setattr(book, "ROOT", tmp_path)
    assert book.main(["--check"]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docs"]
    assert "--draft builds in spite of them" in capsys.readouterr().err
    assert book.main(["--draft", "--out", str(tmp_path / "draft")]) == 0
    assert (tmp_path / "draft/page.html").is_file()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine").touch()
    assert book.main(["--draft", "--out", str(tmp_path / "other")]) == 2
