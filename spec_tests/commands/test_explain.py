"""Laws of `refllm explain`: what it prints, draws and writes for each kind of run, and what it refuses."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from refllm.cells import cells
from refllm.cli import main
from refllm.commands.explain import _print_attention, _print_scores
from refllm.commands.explain_page import page
from refllm.commands.explaining import token_names
from refllm.explain.explanation import AttentionMap, Explanation, LabelScores, chosen_map
from refllm.tokenizers import BytePairTokenizer
from refllm.tokenizers.marked import with_marks
from spec_tests import tiny
from spec_tests.commands.conftest import Refused, leave_the_allocator_alone
from spec_tests.commands.test_classify import SMALL, table
from spec_tests.tasks.test_classify import ROWS

Captured = pytest.CaptureFixture[str]
TEXT = "pear plum and <b>fig</b>"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("explained")
    with pytest.MonkeyPatch.context() as patch:
        leave_the_allocator_alone(patch)
        how = ["--steps", "60", "--lr", "0.02", "--reports", "1", "--out", str(folder / "run"), *SMALL]
        assert main(["classify", "fit", table(folder / "data.csv", ROWS), *how]) == 0
    return str(folder / "run")


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("translator")
    with pytest.MonkeyPatch.context() as patch:
        leave_the_allocator_alone(patch)
        for name, word in (("source", "plus"), ("target", "and")):
            (folder / name).write_text("".join(f"{n} {word} {m}\n" for n in range(9) for m in range(4)))
        sizes = ["--encoder-layers", "2", "--decoder-layers", "1", "--width", "8", "--heads", "2", "--threads", "1"]
        how = ["--steps", "2", "--reports", "1", "--out", str(folder / "run"), *sizes]
        assert main(["translate", "fit", str(folder / "source"), str(folder / "target"), *how]) == 0
    return str(folder / "run")


def explained(capfd: Captured, *arguments: str) -> Any:
    capfd.readouterr()
    assert main(["explain", *arguments, "--json"]) == 0
    out = capfd.readouterr().out
    assert out.isascii()
    return json.loads(out)


def test_the_tokens_add_up_to_what_the_text_changes(classifier: str, capfd: Captured) -> None:
    for how in ([], ["--baseline", "zeros"], ["--baseline", "pad", "--of", "logit", "--label", "stone"]):
        found = explained(capfd, classifier, TEXT, *how)
        one = found["attribution"]
        change = one["value"] - one["baseline_value"]
        assert sum(one["scores"]) == pytest.approx(change, rel=1e-3)
        assert one["missing"] == pytest.approx(change - sum(one["scores"]), abs=1e-12)
        assert len(one["scores"]) == len(found["tokens"])
        assert found["tokens"][0] == "[CLS]"


def test_what_is_explained_is_what_is_predicted(classifier: str, capfd: Captured) -> None:
    found = explained(capfd, classifier, TEXT)
    assert main(["classify", "predict", classifier, TEXT, "--json"]) == 0
    predicted = json.loads(capfd.readouterr().out)
    assert found["attribution"]["label"] == predicted["label"]
    assert found["probabilities"] == pytest.approx(predicted["probabilities"], abs=1e-6)
    other = explained(capfd, classifier, TEXT, "--label", "city", "--method", "gradient")
    assert other["attribution"]["label"] == "city"
    assert other["attribution"]["steps"] is None


def test_the_bars_have_the_signs_and_sizes_of_the_scores(classifier: str, capfd: Captured) -> None:
    found = explained(capfd, classifier, TEXT)
    assert main(["explain", classifier, TEXT]) == 0
    out = capfd.readouterr().out
    scores = found["attribution"]["scores"]
    lines = [line for line in out.splitlines() if "|" in line]
    assert len(lines) == len(scores)
    largest = max(map(abs, scores))
    for line, score in zip(lines, scores, strict=True):
        left, right = line.split("|")
        assert (right if score > 0 else left).count("█") == round(24 * abs(score) / largest)
        assert f"{score:+.4f}" in line
    assert "the sum misses" in out


@pytest.mark.parametrize("how", [[], ["--layer", "1"], ["--layer", "1", "--head", "2"]])
def test_attention_maps_of_a_language_model(trained: Path, capfd: Captured, how: list[str]) -> None:
    found = explained(capfd, str(trained), "3 times 4", *how)
    (one,) = found["attention"]
    assert found.keys() == {"text", "tokens", "attention"}
    assert one["queries"] == one["keys"] == found["tokens"] == ["3", "␣", "t", "i", "m", "e", "s", "␣", "4"]
    for grid in one["heads"]:
        assert all(sum(row) == pytest.approx(1) and not any(row[t + 1 :]) for t, row in enumerate(grid))
    assert main(["explain", str(trained), "3 times 4", *how]) == 0
    shown = capfd.readouterr().out
    assert "what 4 (token 9) attends to" in shown
    first, second = (grid[8] for grid in one["heads"])
    mean = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    wanted = second if "--head" in how else mean
    assert [float(line.split()[1]) for line in shown.splitlines()[2:]] == pytest.approx(wanted, abs=1e-4)


def test_a_classifier_s_attention_is_shown_from_its_first_token(classifier: str, capfd: Captured) -> None:
    found = explained(capfd, classifier, TEXT, "--method", "attention")
    assert found.keys() == {"text", "tokens", "probabilities", "attention"}
    assert main(["explain", classifier, TEXT, "--method", "attention"]) == 0
    assert "what [CLS] (token 1) attends to" in capfd.readouterr().out


def test_an_encoder_decoder_has_maps_of_both_halves_and_across(translator: str, capfd: Captured) -> None:
    found = explained(capfd, translator, "1 plus 2", "--target", "1 and")
    names = [one["name"] for one in found["attention"]]
    assert names == ["encoder.1", "encoder.2", "decoder.1", "cross.1"]
    first, _, own, across = found["attention"]
    assert first["queries"] == first["keys"] == across["keys"] == found["tokens"]
    assert own["queries"] == own["keys"] == across["queries"]
    assert own["queries"][0] == "[CLS]"
    for one in found["attention"]:
        for grid in one["heads"]:
            assert [len(grid), *{len(row) for row in grid}] == [len(one["queries"]), len(one["keys"])]
            assert all(sum(row) == pytest.approx(1) for row in grid)
    alone = explained(capfd, translator, "1 plus 2")
    assert [one["name"] for one in alone["attention"]] == names


def test_a_text_longer_than_the_context_is_cut_and_said_so(classifier: str, trained: Path, capfd: Captured) -> None:
    for run, what in ((classifier, "read up to there"), (str(trained), "its beginning is left out")):
        capfd.readouterr()
        assert main(["explain", run, "1 2 3 4 5 6 " * 9, "--method", "attention", "--json"]) == 0
        out, err = capfd.readouterr()
        assert len(json.loads(out)["tokens"]) == 16
        assert what in err


class _Page(HTMLParser):
    """The tags that are open, the addresses that are asked for, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.said: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "image", "rect", "tr", "td", "th"):
            self.open.append(tag)
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.said.append(data)


def test_the_page_holds_everything_and_asks_for_nothing(classifier: str, tmp_path: Path, capfd: Captured) -> None:
    assert main(["explain", classifier, TEXT, "--page", "why.html", "--layer", "1", "--head", "2"]) == 0
    text = (tmp_path / "why.html").read_text(encoding="utf-8")
    read = _Page()
    read.feed(text)
    assert read.open == []
    assert all(address.startswith("data:image/png;base64,") for address in read.addresses)
    assert len(read.addresses) == 1 + 2  # the map that was chosen, and each head of the layer
    assert not re.search(r"@import|url\(|<script|<b>fig", text)
    assert "color-scheme: light dark" in text
    found = explained(capfd, classifier, TEXT)
    said = " ".join(read.said)
    for token, score in zip(found["tokens"], found["attribution"]["scores"], strict=True):
        assert token in said
        assert f"{score:+.3f}" in said


def _cells(url: str) -> list[list[int]]:
    """The opacities in a picture of the page."""
    data, header, rows = base64.b64decode(url.partition(",")[2]), (0, 0), b""
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    at = 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size]) == (zlib.crc32(kind + body),)
        header = struct.unpack(">II", body[:8]) if kind == b"IHDR" else header
        rows += body if kind == b"IDAT" else b""
        at += 12 + size
    raw, (width, height) = zlib.decompress(rows), header
    lines = [raw[i * (width + 1) :][: width + 1] for i in range(height)]
    assert all(line[0] == 0 for line in lines)
    return [list(line[1:]) for line in lines]


def test_a_cell_is_as_opaque_as_its_weight_is_large() -> None:
    grid = [[0.5, 0.25, 0.0], [0.1, 0.0, 0.4]]
    one = AttentionMap("1", ["a", "b"], ["x", "<y>", "z"], [grid])
    text = page(Explanation("", ["a"], None, None, [one]), chosen_map([one], layer=None, head=1))
    for url in re.findall(r'"(data:[^"]+)"', text):
        assert _cells(url) == [[255, 128, 0], [51, 0, 204]]
    assert "&lt;y&gt; 0.250" in text


@pytest.mark.optional
def test_a_picture_is_drawn(classifier: str, translator: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    assert main(["explain", classifier, "pear $plum$ 梨", "--picture", "why.png"]) == 0
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
    for name, how in (("all.svg", []), ("one.svg", ["--layer", "cross.1", "--head", "2"])):
        assert main(["explain", translator, "1 plus 2", "--picture", name, *how]) == 0
        assert "<svg" in (tmp_path / name).read_text()


def test_a_picture_needs_matplotlib(classifier: str, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "-m pip install 'matplotlib>=3.9'" in refused("explain", classifier, TEXT, "--picture", "why.png")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((" ",), "the text is empty"),
        ((TEXT, "--label", "metal"), "the label 'metal' was never seen in training, which had city, fruit, stone"),
        ((TEXT, "--steps", "5"), "at least 32 steps"),
        ((TEXT, "--method", "attention", "--steps", "50"), "--steps is for a classifier's label"),
        ((TEXT, "--method", "gradient", "--steps", "50"), "--steps is for integrated gradients"),
        ((TEXT, "--layer", "1"), "--layer and --head choose an attention map"),
        ((TEXT, "--method", "attention", "--layer", "9"), "there is no layer 9; the model has 1"),
        ((TEXT, "--method", "attention", "--head", "3"), "there is no head 3; the layers have heads 1 to 2"),
        ((TEXT, "--target", "x"), "--target is for an encoder-decoder"),
        ((TEXT, "--page", "why.txt"), "why.txt must end in .html"),
        ((TEXT, "--page", "none/why.html"), "none/why.html cannot be written: none is not a folder; make it one or ch"),
        ((TEXT, "--picture", "why.gif"), "why.gif must end in .png or .svg"),
    ],
)
def test_a_mistake_is_one_line(classifier: str, refused: Refused, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused("explain", classifier, *arguments)


def test_other_runs_have_no_labels(trained: Path, refused: Refused) -> None:
    run = str(trained)
    assert "is no classifier" in refused("explain", run, "3", "--method", "gradient")
    assert "--label is for a classifier, not for attention maps" in refused("explain", run, "3", "--label", "x")


def test_models_without_attention_are_refused(tmp_path: Path, refused: Refused) -> None:
    data = str(tiny.data(tmp_path))
    sizes = ["--layers", "1", "--width", "8", "--hidden", "8", "--context", "16", "--steps", "1", "--threads", "1"]
    assert main(["train", "--model", "rnn", "--tokenizer", "character", "--data", data, "--out", "rnn", *sizes]) == 0
    assert "has no attention to show" in refused("explain", "rnn", "3 times")
    assert main(["train", "--model", "ngram", "--tokenizer", "character", "--data", data, "--out", "ngram"]) == 0
    assert "an n-gram counts" in refused("explain", "ngram", "3 times")


def test_files_are_not_overwritten(classifier: str, tmp_path: Path, refused: Refused) -> None:
    for flag, name in (("--page", "why.html"), ("--picture", "why.png")):
        (tmp_path / name).write_text("mine")
        assert "will not be overwritten" in refused("explain", classifier, TEXT, flag, name)


@pytest.mark.optional
@pytest.mark.parametrize("nowhere", [("--page", "nodir/why.html"), ("--picture", "nodir/why.png")])
def test_nothing_is_written_where_one_of_two_places_cannot_be_written_to(
    classifier: str, refused: Refused, nowhere: tuple[str, str]
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    places = {"--page": "ok.html", "--picture": "ok.png", **dict([nowhere])}
    flags = [word for pair in places.items() for word in pair]
    assert f"{nowhere[1]} cannot be written" in refused("explain", classifier, TEXT, *flags)


@pytest.mark.parametrize("marks", [False, True])
def test_every_token_has_a_name_that_can_be_seen(marks: bool) -> None:
    pairs = BytePairTokenizer.train("a b\n\tc é", vocabulary=256)
    tokenizer: Any = with_marks(pairs) if marks else pairs
    ids = [*tokenizer.encode(" a\n\té").tolist(), *(tokenizer.special if marks else ())]
    names = token_names(ids, tokenizer)
    assert names[:6] == ["␣", "a", "\\n", "\\t", "<C3>", "<A9>"]
    assert names[6:] == (["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] if marks else [])
    assert all(name.strip() and name.isprintable() for name in names)


def test_a_run_of_the_default_tokenizer_is_explained(tmp_path: Path, capfd: Captured) -> None:
    (tmp_path / "text.txt").write_text("one two three four five six seven\n" * 40)
    small = ["--width", "16", "--layers", "1", "--heads", "2", "--vocabulary", "270", "--context", "16"]
    how = ["--data", str(tmp_path / "text.txt"), "--steps", "2", *small, "--threads", "1"]
    assert main(["train", *how, "--out", str(tmp_path / "run")]) == 0
    capfd.readouterr()
    assert "".join(explained(capfd, str(tmp_path / "run"), "two three")["tokens"]) == "two␣three"


@pytest.mark.optional
def test_the_example_of_the_help_is_a_command_that_runs(
    classifier: str, trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from refllm.commands.explain import DESCRIPTION

    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "stars").symlink_to(classifier)
    (tmp_path / "runs" / "001").symlink_to(trained)
    import shlex

    for line in re.findall(r"refllm (explain .*)", DESCRIPTION):
        words = shlex.split(line)
        replaced = [{"1": "stone", "2": "1", "The assert statement": "3 times"}.get(word, word) for word in words]
        if "--head" in replaced:
            replaced[replaced.index("--head") + 1] = "1"
            replaced[replaced.index("--layer") + 1] = "1"
            pytest.importorskip("matplotlib", reason="matplotlib is not installed")
        assert main(replaced) == 0


def test_wide_characters_leave_the_bars_in_one_column(capfd: Captured) -> None:
    tokens = ["pear", "梨梨", "и\u0301", "🙂", "한국어", "long " * 30, "梨" * 60]
    numbers = [0.5, -0.25, 0.0, 0.125, -0.5, 0.1, 0.2]
    _print_scores(tokens, LabelScores("gradient", "a", "logit", "mask", None, numbers, 1.0, 0.0, 0.0))
    lines = [line for line in capfd.readouterr().out.splitlines() if "|" in line]
    assert len(lines) == len(tokens)
    assert len({cells(line.partition("|")[0]) for line in lines}) == 1
    maps = AttentionMap("1", tokens, tokens, [])
    _print_attention("layer 1", maps, [[0.1] * len(tokens)] * len(tokens))
    lines = capfd.readouterr().out.splitlines()[2:]
    assert len({cells(line.partition("0.1000")[0]) for line in lines}) == 1


def test_scores_that_are_all_small_are_no_row_of_zeros(capfd: Captured) -> None:
    scores = LabelScores("gradient", "a", "log-probability", "mask", None, [3e-6, -2e-7], -1.0, -1.000003, 0.0)
    found = Explanation("x y", ["x", "y"], {"a": 0.4, "b": 0.6}, scores, [])
    text = page(found, None)
    assert "+0.00000300" in text
    assert "±0.000" not in text
    assert "+0.000<" not in text
    assert "-1.00000300 for the baseline" in text
