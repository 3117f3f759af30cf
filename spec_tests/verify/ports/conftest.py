"""A small published model of each form, with what a right port computes on every input."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from refllm.parameters import Tree, from_names
from refllm.pretrained.folder import open_folder
from refllm.verify.ports.chosen import inputs
from refllm.verify.ports.judged import Judged, judged
from refllm.verify.ports.program import Program, program
from refllm.verify.ports.truth import Truth, truth
from spec_tests.verify.ports.models import written
from spec_tests.verify.ports.strangers import Port


@dataclass(frozen=True)
class Published:
    folder: Path
    p: Tree
    program: Program
    truths: list[Truth]

    def answers(self, wrong: str, *, taps: bool) -> list[Judged]:
        """Those of a port with that mistake."""
        port: Any = Port(str(self.folder), wrong)
        found = []
        for one in self.truths:
            y = port.logits(**one.input.arrays)
            found.append(judged(self.program, one, {"logits": y}, port.taps if taps else {}))
        return found


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def of(name: str) -> Published:
        folder = open_folder(written(tmp_path_factory.mktemp("published") / "model", name))
        p = from_names(folder.shapes, folder.leaves())
        steps = program(folder.architecture.model, folder.config)
        return Published(folder.directory, p, steps, [truth(steps, p, given, "float32") for given in inputs(steps)])

    return of
