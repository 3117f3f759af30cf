"""The README's examples run as they are printed."""

import re
from pathlib import Path

import pytest

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
