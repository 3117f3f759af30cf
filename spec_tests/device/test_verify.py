"""The golden files on a device: `refllm verify --self --device cuda`."""

from pathlib import Path

import pytest

from refllm import cli
from spec_tests.devices import Device, every_device
from spec_tests.strict_cupy import absent


@pytest.mark.slow
@pytest.mark.one_in(4)
@every_device
@pytest.mark.parametrize(
    ("dtype", "more"),
    [
        ("float32", []),
        ("float64", ["--level", "2"]),
        pytest.param("float64", [], marks=pytest.mark.slow),
    ],
)
def test_every_golden_case_passes_on_a_device(
    device: Device, dtype: str, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with device.present():
        assert cli.main(["verify", "--self", "--device", "cuda", "--dtype", dtype, *more]) == 0
    out = capsys.readouterr().out
    assert "refllm on cuda" in out
    assert "skipped" not in out


def test_a_device_is_for_refllm_itself_and_for_arrays_of_a_library(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_adapter.py").write_text("def relu(x):\n    return x\n")
    assert cli.main(["verify", "my_adapter.py", "--device", "cuda"]) == 2
    assert "a device is for arrays of a library: say ARRAYS" in capsys.readouterr().err
    assert cli.main(["verify", "--cmd", "x {request} {response}", "--device", "cuda"]) == 2
    assert "--device is for --self and for adapters" in capsys.readouterr().err


def test_verifying_on_a_device_without_cupy_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    with absent():
        assert cli.main(["verify", "--self", "--device", "cuda"]) == 2
    assert "-m pip install 'cupy-cuda13x>=14'" in capsys.readouterr().err
