"""Laws of the pages of results in a browser, light and dark, wide and on a phone: no rule of axe is broken, nothing is
wider than the window, a page loads from disk within a second. spec_tests/book/test_browser.py says what they need.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from refllm.cli import main
from spec_tests import tiny
from spec_tests.book.test_browser import missing, told
from spec_tests.commands.conftest import leave_the_allocator_alone

ADAPTER = """
import numpy as np

def softmax(x):
    e = np.exp(x)
    return e / e.sum()

def relu(x):
    raise ValueError("<no> " + "luck" * 60)
"""

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(missing()), reason=missing())]


def test_every_page_of_results_is_accessible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    leave_the_allocator_alone(monkeypatch)
    (tmp_path / "mine.py").write_text(ADAPTER)
    run = tiny.begin(tmp_path, "run")
    run.keeper.keep(1, "注意力机制" * 100 + "<b>" + "x" * 300)
    tiny.train(run)
    run.summarise({"uniform": 5.0})
    assert main(["verify", "mine.py", "--values", "--html", "verify.html"]) == 1
    flags = ["--tokenizer", "character", "--width", "8", "--hidden", "8", "--context", "16", "--threads", "1"]
    which = ["--models", "ngram", "nnlm", "--minutes", "0.005", "--out", "c", "--html", "compare.html"]
    assert main(["compare", "--data", str(tiny.data(tmp_path)), *which, *flags]) == 0
    pages = [tmp_path / name for name in ("run/report.html", "verify.html", "compare.html")]
    assert told(*pages) == []
