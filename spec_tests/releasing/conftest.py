"""A release of the golden files of this checkout, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from releasing import __main__ as release
from spec_tests.releasing import checkout


@pytest.fixture(scope="session")
def made() -> dict[str, bytes]:
    """The packages by their path in the folder of a release."""
    return release.packages(checkout.sources())


@pytest.fixture(scope="session")
def folder(made: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on the disk."""
    out = tmp_path_factory.mktemp("release") / "out"
    release.write(out, made)
    return out
