"""The three versions, each read where it is said, and what they must look like."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from refllm.errors import UserError
from releasing.sources import Sources

PACKAGE, MANIFEST = "refllm/__init__.py", "golden/MANIFEST.json"


@dataclass(frozen=True)
class Versions:
    """Of the package, of the specification (what the golden files say) and of their format."""

    package: str
    specification: str
    format: int

    @property
    def vectors(self) -> str:
        """The specification's, with the three numbers that npm, Go and Cargo want: format, cases, corrections."""
        return three(self.specification)


def three(specification: str) -> str:
    """1.1 is 1.1.0."""
    return specification if specification.count(".") == 2 else f"{specification}.0"


def number(specification: str) -> tuple[int, ...]:
    """To be compared."""
    return tuple(int(part) for part in three(specification).split("."))


def of(sources: Sources) -> Versions:
    package = re.search(r'^__version__ = "(\d+\.\d+\.\d+)"$', sources.text(PACKAGE), re.MULTILINE)
    if package is None:
        raise UserError(f'{PACKAGE} must say __version__ = "MAJOR.MINOR.PATCH" in a line of its own')
    manifest = json.loads(sources.files[MANIFEST])
    said, form = manifest["spec_version"], manifest["format"]
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?", said):
        raise UserError(f"{MANIFEST}: spec_version is {said!r}; it must be FORMAT.CASES or FORMAT.CASES.CORRECTIONS")
    if number(said)[0] != form:
        raise UserError(f"{MANIFEST}: spec_version {said} begins with another number than the format, {form}")
    return Versions(package[1], said, form)
