"""The stored list of CuPy's names and signatures, and the check of a call against it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

SURFACE: dict[str, Any] = json.loads((Path(__file__).parent / "surface.json").read_text(encoding="utf-8"))
VERSION: str = SURFACE["version"]


def signature_check(name: str, signature: str) -> Callable[..., dict[str, Any]]:
    """A function that takes what CuPy's takes, raises TypeError for the rest, and returns its arguments by name."""
    scope: dict[str, Any] = {}
    exec(f"def check{signature}: return locals()", scope)
    check = scope["check"]

    def checked(*args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            bound: dict[str, Any] = check(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"CuPy {VERSION}: {name}{signature}: {str(error).removeprefix('check() ')}") from None
        return bound

    return checked
