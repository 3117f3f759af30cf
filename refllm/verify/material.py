"""What comes with the package for `refllm verify`: the golden files, the page on plugging in, the example adapters."""

from __future__ import annotations

import contextlib
from pathlib import Path


def beside_the_package(*place: str) -> Path | None:
    """A file of the checkout, or the one that was installed with the package; None where it is neither."""
    here = Path(__file__).resolve().parents[2].joinpath(*place)
    if here.is_file():
        return here
    import importlib.metadata

    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("refllm") or ():
            if file.parts[-len(place) :] == place:
                return Path(str(file.locate())).resolve()
    return None


def page_on_plugging_in() -> str:
    """Where the page is, for people: its path, shorter where the checkout is the current folder."""
    page = beside_the_package("docs", "conformance.md")
    if page is None:
        return "docs/conformance.md of the sources"
    with contextlib.suppress(ValueError):
        return str(page.relative_to(Path.cwd()))
    return str(page)
