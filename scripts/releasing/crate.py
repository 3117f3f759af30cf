"""The crate: a table of the files, compiled in, and nothing else. As `cargo package` would make it."""

from __future__ import annotations

from releasing.archives import entries, tar_gz
from releasing.package import Package


def made(package: Package) -> dict[str, bytes]:
    folder = f"{package.names['crate']}-{package.versions.vectors}"
    files = {f"golden/{path}": content for path, content in package.golden.items()}
    files |= package.filled("crate", table=_table(package)) | package.changes | {"LICENSE": package.golden["LICENSE"]}
    return {f"{folder}.crate": tar_gz(entries(files, f"{folder}/"))}


def _table(package: Package) -> str:
    """Sorted by path, in which `get` searches."""
    listed = {entry["path"]: (entry["level"], entry["cases"]) for entry in package.manifest["files"]}
    lines = []
    for path in sorted(listed):
        level, cases = listed[path]
        lines.append(
            f'    File {{ path: "{path}", level: {level}, cases: {cases}, bytes: include_bytes!("../golden/{path}") }},'
        )
    return "\n".join(lines)
