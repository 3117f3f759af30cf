"""Programs of other languages: found, and able to run at all."""

from __future__ import annotations

import functools
import shutil
import subprocess

import pytest


@functools.cache
def why_not(name: str) -> str:
    """Why this program cannot be used here; "" if it can. A launcher that has nothing to launch is no compiler."""
    path = shutil.which(name)
    if path is None:
        return f"there is no {name} on the path"
    words = [path, "version" if name == "go" else "--version"]
    asked = subprocess.run(words, capture_output=True, text=True, check=False)
    return f"{name} does not run: {asked.stderr.strip().partition(chr(10))[0]}" if asked.returncode else ""


def tool(name: str) -> str:
    """The path of a program; the test is skipped where there is none that works."""
    if reason := why_not(name):
        pytest.skip(reason)
    return str(shutil.which(name))
