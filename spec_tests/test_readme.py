"""The README's examples run as they are printed."""

import re
from pathlib import Path

import pytest

from refllm import cli

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("code", [block for block in BLOCKS if "import" in block])
def test_an_example_with_its_imports_runs(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})


def test_the_feed_forward_layer_is_printed_as_it_stands_in_its_file() -> None:
    (printed,) = [block for block in BLOCKS if "back1" in block]
    source = (README.parent / "refllm/blocks/feed_forward.py").read_text(encoding="utf-8")
    without_types = re.sub(r": Array|: Tree| -> [^:]+(?=:\n)", "", source)
    lines = [line.strip() for line in without_types.splitlines() if line.strip()]
    for line in printed.splitlines():
        assert not line.strip() or line.strip() in lines


def test_the_verifier_says_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = [block for block in BLOCKS if "def attention" in block]
    (tmp_path / "my_attention.py").write_text(code, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["verify", "my_attention.py", "--values", "--only", "attention"]) == 1
    (printed,) = re.findall(r"got wrong:\n\n```\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    rounding = re.compile(r"to \d(\.\d+)?e-\d+|= \S+ times")  # the size of a rounding error is the machine's
    output = rounding.sub("", " ".join(capsys.readouterr().out.split()))
    assert rounding.sub("", " ".join(printed.split())) in output
