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


def test_an_adapter_may_import_what_lies_beside_it_when_it_is_called_too(tmp_path: Path) -> None:
    (tmp_path / "helper_beside_it.py").write_text("def rectified(x): return x * (x > 0)\n", encoding="utf-8")
    (tmp_path / "late_beside_it.py").write_text("def step(x): return x > 0\n", encoding="utf-8")
    (tmp_path / "mine.py").write_text(
        "from helper_beside_it import rectified\n"
        "def relu(x):\n"
        "    def back(dy):\n"
        "        from late_beside_it import step\n"
        "        return dy * step(x)\n"
        "    return rectified(x), back\n",
        encoding="utf-8",
    )
    y, back = subjects.adapter(tmp_path / "mine.py").operation("relu")(numpy.array([-1.0, 2]))
    assert (y.tolist(), back(numpy.ones(2)).tolist()) == ([0, 2], [0, 1])


def test_a_warning_on_the_way_to_a_right_answer_breaks_no_law(tmp_path: Path) -> None:
    """exp overflows in a branch that is not taken, forward and back; warnings are errors in the tests."""
    (tmp_path / "mine.py").write_text(
        "import warnings\n"
        "import numpy\n"
        "def softmax(x):\n"
        "    warnings.warn('slow')\n"
        "    y = numpy.where(x > 700, 1.0, numpy.exp(x))\n"
        "    return y, lambda dy: numpy.where(x > 700, 0.0, numpy.exp(x) * dy)\n",
        encoding="utf-8",
    )
    y, back = subjects.adapter(tmp_path / "mine.py").operation("softmax")(numpy.array([1000.0]))
    assert (y.tolist(), back(numpy.ones(1)).tolist()) == ([1], [0])


def test_an_adapter_that_cannot_be_imported_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("1 / 0\n", encoding="utf-8")
    with pytest.raises(
        pytest.UsageError, match=r"mine.py cannot be imported: ZeroDivisionError: .* \(mine.py, line 1\)$"
    ):
        subjects.adapter(tmp_path / "mine.py")
