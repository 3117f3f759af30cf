"""The archive of the golden files for everybody who has no package manager of ours: .tar.gz."""

from __future__ import annotations

import hashlib

from releasing.archives import entries, tar_gz
from releasing.package import Package


def made(package: Package) -> dict[str, bytes]:
    folder = f"{package.names['vectors']}-{package.versions.vectors}"
    files = {f"golden/{path}": content for path, content in package.golden.items()}
    files |= package.filled("vectors") | package.changes | {"LICENSE": package.golden["LICENSE"]}
    files["SHA256SUMS"] = sums(files)
    return {f"{folder}.tar.gz": tar_gz(entries(files, f"{folder}/"))}


def sums(files: dict[str, bytes]) -> bytes:
    """As `sha256sum --check` reads them."""
    return "".join(f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)).encode()
