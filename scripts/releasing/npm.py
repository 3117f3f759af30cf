"""The package for Node, as `npm pack` would make it."""

from __future__ import annotations

import json

from releasing.archives import entries, tar_gz
from releasing.package import Package


def made(package: Package) -> dict[str, bytes]:
    name, version = package.names["npm"], package.versions.vectors
    files = {f"golden/{path}": content for path, content in package.golden.items()}
    files |= package.filled("npm") | package.changes | {"LICENSE": package.golden["LICENSE"]}
    types, default = files.pop("index.d.ts"), files.pop("default.d.ts")
    files |= {"index.d.mts": types + default, "index.d.cts": types}  # `require` gives no default
    files["package.json"] = (json.dumps(_described(package, sorted(files)), indent=2) + "\n").encode()
    label = name.removeprefix("@").replace("/", "-")
    return {f"{label}-{version}.tgz": tar_gz(entries(files, "package/"))}


def _described(package: Package, files: list[str]) -> dict[str, object]:
    return {
        "name": package.names["npm"],
        "version": package.versions.vectors,
        "description": f"Golden files of language models, specification {package.versions.specification}: inputs, "
        "exact answers, gradients and tolerances",
        "license": "CC0-1.0",
        "main": "./index.cjs",
        "module": "./index.mjs",
        "types": "./index.d.cts",
        "exports": {
            ".": {
                "import": {"types": "./index.d.mts", "default": "./index.mjs"},
                "require": {"types": "./index.d.cts", "default": "./index.cjs"},
            },
            "./golden/*": "./golden/*",
            "./package.json": "./package.json",
        },
        "files": sorted({name.partition("/")[0] for name in files} - {"README.md", "LICENSE"}),
        "engines": {"node": ">=16"},
        "sideEffects": False,
    }
