"""Laws of the optional parts: what is said of installing them works where the user is."""

from __future__ import annotations

import shlex
import sys
import tomllib
from pathlib import Path

import pytest

import refllm
from refllm import backend
from refllm.extras import EXTRAS, how_to_install, how_to_install_package, optional_parts
from refllm.invocation import VARIABLE

PROJECT = tomllib.loads((Path(refllm.__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize("extra", list(EXTRAS))
def test_the_requirements_are_those_of_the_project(extra: str) -> None:
    assert list(EXTRAS[extra]) == PROJECT["optional-dependencies"][extra]


@pytest.mark.parametrize("extra", list(EXTRAS))
def test_elsewhere_the_packages_are_named_for_the_python_that_runs(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert shlex.split(how_to_install(extra)) == [sys.executable, "-m", "pip", "install", *EXTRAS[extra]]


def test_from_a_checkout_the_script_installs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "./scripts/refllm")
    assert how_to_install("plot") == "./scripts/refllm install plot"
    assert "./scripts/refllm install eval" in optional_parts()


def test_a_path_with_spaces_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/my programs/python")
    assert how_to_install_package("a>=1").startswith("'/my programs/python' -m pip install 'a>=1'")


def test_cupys_requirement_is_the_projects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(refllm.errors.UserError) as caught:
        backend.device_namespace("cuda")
    assert shlex.quote(PROJECT["optional-dependencies"]["gpu-cuda13"][0]) in str(caught.value)
