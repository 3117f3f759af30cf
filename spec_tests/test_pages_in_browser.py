"""Laws of the pages of results in a browser, light and dark, wide and on a phone: no rule of axe is broken, nothing is
wider than the window, a page loads from disk within a second. spec_tests/book/test_browser.py says what they need.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from refllm.cli import main
from refllm.commands import explain_page
from refllm.explain.explanation import AttentionMap, Explanation, LabelScores, chosen_map
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


def explanation() -> str:
    """An explanation with long tokens, markup in them, and a map that is wider than a phone."""
    tokens = ["<b>", "梨梨", "w" * 40, *(f"token{n}" for n in range(30))]
    scores = LabelScores(
        "gradient", "<i>", "logit", "mask", None, [(-1) ** n / (n + 1) for n in range(33)], 1.0, 0, 0.1
    )
    weights = [[float(s == t) or 0.5 / (1 + abs(s - t)) for s in range(33)] for t in range(33)]
    one = AttentionMap("1", tokens, tokens, [weights] * 4)
    found = Explanation(" ".join(tokens), tokens, {"<i>": 0.75, "no": 0.25}, scores, [one])
    return explain_page.page(found, chosen_map([one], layer=None, head=1))


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
    (tmp_path / "explain.html").write_text(explanation(), encoding="utf-8")
    pages = [tmp_path / name for name in ("run/report.html", "verify.html", "compare.html", "explain.html")]
    assert told(*pages) == []
