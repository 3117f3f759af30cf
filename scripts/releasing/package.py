"""What every package of the golden files needs: their files, the versions, templates, and what the READMEs say."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from string import Template
from typing import Any

from releasing import difference, versions
from releasing.difference import Difference
from releasing.sources import Sources
from releasing.versions import Versions

TEMPLATES = "scripts/releasing/templates"


@dataclass(frozen=True)
class Package:
    """The golden files of a commit, and what is said about them."""

    sources: Sources
    versions: Versions
    change: Difference

    @cached_property
    def golden(self) -> dict[str, bytes]:
        """The files of golden/ by their path in it."""
        return self.sources.under("golden")

    @cached_property
    def manifest(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.golden["MANIFEST.json"])
        return found

    @cached_property
    def names(self) -> Mapping[str, str]:
        """The names of the packages where they are published (pyproject.toml)."""
        found: dict[str, str] = tomllib.loads(self.sources.text("pyproject.toml"))["tool"]["refllm-release"]
        return found

    @property
    def changes(self) -> dict[str, bytes]:
        """What changed since the last release, for programs and for people."""
        data = json.dumps(difference.as_data(self.change), indent=1) + "\n"
        return {"CHANGES.json": data.encode(), "CHANGES.md": difference.as_text(self.change).encode()}

    def filled(self, kind: str, **more: str) -> dict[str, bytes]:
        """The templates of a kind of package, with the versions, names and numbers of this release."""
        said = {
            "version": self.versions.vectors,
            "spec_version": self.versions.specification,
            "format": str(self.versions.format),
            "cases": str(self.manifest["cases"]),
            "levels": self._levels(),
            "npm": self.names["npm"],
            "crate": self.names["crate"],
            "crate_module": self.names["crate"].replace("-", "_"),
            "go": go_module(self),
            **more,
        }
        found = self.sources.under(f"{TEMPLATES}/{kind}")
        return {name: Template(content.decode()).substitute(said).encode() for name, content in found.items()}

    def _levels(self) -> str:
        """A line a level: its files and cases."""
        count: dict[int, list[int]] = {}
        for entry in self.manifest["files"]:
            of_level = count.setdefault(entry["level"], [0, 0])
            of_level[0] += 1
            of_level[1] += entry["cases"]
        lines = [f"| L{level} | {files} | {cases} |" for level, (files, cases) in sorted(count.items())]
        return "\n".join(["| level | files | cases |", "|---|---|---|", *lines])


def of(sources: Sources) -> Package:
    """UserError where the versions do not say what changed."""
    return Package(sources, versions.of(sources), difference.since_the_last_release(sources))


def go_module(package: Package) -> str:
    """A Go module says its major version in its path from the second on."""
    major = versions.number(package.versions.specification)[0]
    return package.names["go"] + (f"/v{major}" if major > 1 else "")
