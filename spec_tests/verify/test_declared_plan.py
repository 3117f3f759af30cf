"""An implementation says what it stores in which type: PLAN of its file, or --plan; what is no plan stops the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from refllm.cli import main
from refllm.errors import UserError
from refllm.verify import adapter, declared_plan, isolated

SOFTMAX = "def softmax(x):\n    raise NotImplementedError\n"


def written(folder: Path, plan: str) -> Path:
    path = folder / "mine.py"
    path.write_text(f"PLAN = {plan}\n{SOFTMAX}")
    return path


@pytest.mark.parametrize("plan", ['"fused"', '{"stored": {"probabilities": "bfloat16", "dP": "dtype"}, "chain": 64}'])
def test_a_file_declares_its_plan_here_and_in_a_process_of_its_own(tmp_path: Path, plan: str) -> None:
    path = written(tmp_path, plan)
    expected = declared_plan.chosen(plan if plan[0] == "{" else "fused", None, "float32")
    assert declared_plan.chosen(None, adapter.from_file(path), "float32") == expected
    with isolated.Isolated(path, 60) as found:
        assert declared_plan.chosen(None, found, "float32") == expected


def test_the_command_line_is_stronger_than_the_file_and_eager_is_meant_by_silence(tmp_path: Path) -> None:
    found = adapter.from_file(written(tmp_path, '"fused"'))
    assert declared_plan.chosen("eager", found, "bfloat16").name == "eager"
    assert declared_plan.chosen(None, object(), "bfloat16").name == "eager"


def test_a_type_named_dtype_is_that_of_the_run() -> None:
    said = '{"stored": {"P": "dtype"}, "factors": "dtype"}'
    found = declared_plan.chosen(said, None, "float16")
    assert (dict(found.stored), found.factors) == ({"P": "float16"}, "float16")


@pytest.mark.one_in(4)
@pytest.mark.parametrize("plan", ['"fussed"', "3", '{"chain": -1}', '{"stored": {"probabilitis": "float16"}}'])
def test_a_wrong_plan_of_a_file_is_one_line(tmp_path: Path, plan: str) -> None:
    path = written(tmp_path, plan)
    for opened in (adapter.from_file, lambda p: isolated.Isolated(p, 60)):
        with pytest.raises(UserError) as error:
            opened(path)
        assert str(error.value).startswith(f"{path}: PLAN")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("plan", ["fussed", "", '{"chain": }', '{"store": {}}', '{"accumulate": ["float32"]}', "{}x"])
def test_a_wrong_plan_on_the_command_line_is_one_line(capsys: pytest.CaptureFixture[str], plan: str) -> None:
    assert main(["verify", "--self", "--only", "SMX/softmax-rows", "--plan", plan]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("refllm: --plan")
    assert err.count("\n") == 1
