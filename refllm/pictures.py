"""Pictures of matplotlib, each as PNG and as SVG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from refllm.directory import require_free

SUFFIXES = (".png", ".svg", ".pdf")


def files_of(path: Path) -> list[Path]:
    """The file that was asked for, and beside it what it is not of PNG and SVG."""
    return list(dict.fromkeys([path, path.with_suffix(".png"), path.with_suffix(".svg")]))


def require_free_pictures(path: Path) -> None:
    """UserError unless each of them can be written where there is none yet."""
    require_free(path, *SUFFIXES)
    for each in files_of(path):
        require_free(each)


def save_pictures(figure: Any, path: Path, *, dpi: int = 150) -> str:
    """Writes them; their names."""
    for each in files_of(path):
        figure.savefig(each, dpi=dpi)
    return ", ".join(map(str, files_of(path)))
