"""The seam through which the tests see an implementation."""

from pathlib import Path

import numpy
import pytest

from spec_tests import subject as subjects

ADAPTER = """
import numpy

def relu(x):
    return numpy.maximum(x, 0), lambda dy: dy * (x > 0)

def _private(x): pass
"""


def test_by_default_the_operations_are_those_of_refllm() -> None:
    from refllm.ops.layer_norm import layer_norm

    assert subjects.refllm().operation("layer_norm") is layer_norm


def test_an_adapter_brings_its_own_operations_and_is_excused_from_others(tmp_path: Path) -> None:
    path = tmp_path / "my_adapter.py"
    path.write_text(ADAPTER, encoding="utf-8")
    subject = subjects.adapter(path)
    assert subject.operation("relu")(numpy.array([-1.0, 2]))[0].tolist() == [0, 2]
    for missing in ("layer_norm", "_private"):
        with pytest.raises(pytest.skip.Exception, match=f"^adapter has no {missing}$"):
            subject.operation(missing)


@pytest.mark.parametrize(("name", "message"), [("absent.py", "no such file"), ("adapter.txt", "must end in .py")])
def test_a_file_that_is_no_module_is_refused_in_one_line(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "adapter.txt").write_text(ADAPTER, encoding="utf-8")
    with pytest.raises(pytest.UsageError, match=message):
        subjects.adapter(tmp_path / name)
