"""The golden files, loaded once, and a small golden folder to damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from refllm.verify import corpus
from spec_tests.verify.folder import Folder


@pytest.fixture(scope="session")
def golden() -> corpus.Corpus:
    return corpus.load(corpus.folder(None))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "golden")
