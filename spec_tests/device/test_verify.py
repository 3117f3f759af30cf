"""The golden files on a device: `refllm verify --self --device cuda`."""

import pytest

from refllm import cli
from spec_tests.devices import Device, every_device
from spec_tests.strict_cupy import absent


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


def test_a_device_is_for_refllm_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", "my_adapter.py", "--device", "cuda"]) == 2
    assert "--device is for --self" in capsys.readouterr().err


def test_verifying_on_a_device_without_cupy_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    with absent():
        assert cli.main(["verify", "--self", "--device", "cuda"]) == 2
    assert "-m pip install 'cupy-cuda13x>=14'" in capsys.readouterr().err
