"""The Go module: its folder, and the same as a module proxy serves it (https://go.dev/ref/mod#goproxy-protocol)."""

from __future__ import annotations

import datetime
import json
import re

from releasing.archives import Entry, entries, zipped
from releasing.package import Package, go_module


def made(package: Package) -> dict[str, bytes]:
    module, version = go_module(package), f"v{package.versions.vectors}"
    files = {f"golden/{path}": content for path, content in package.golden.items()}
    files |= package.filled("go") | package.changes | {"LICENSE": package.golden["LICENSE"]}
    proxy = f"go-proxy/{_escaped(module)}/@v"
    at = datetime.datetime.fromtimestamp(package.sources.moment, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    packed = [Entry(f"{module}@{version}/{entry.path}", entry.content) for entry in entries(files)]
    return {
        **{f"go-module/{path}": content for path, content in files.items()},
        f"{proxy}/list": f"{version}\n".encode(),
        f"{proxy}/{version}.info": json.dumps({"Version": version, "Time": at}).encode(),
        f"{proxy}/{version}.mod": files["go.mod"],
        f"{proxy}/{version}.zip": zipped(packed),
    }


def _escaped(module: str) -> str:
    """A proxy writes a capital as ! and its small letter."""
    return re.sub("[A-Z]", lambda found: f"!{found[0].lower()}", module)
