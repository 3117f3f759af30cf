"""What a script needs of the Python that runs it: said in one line where it is missing, but for --help."""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
from pathlib import Path


def require(usage: str | None, *modules: str) -> None:
    """Goes on where this Python has the modules. Else the script ends: with its usage if that was asked for, or with a
    line that says what to install, and status 2."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if not missing:
        return
    if {"-h", "--help"} & set(sys.argv[1:]):
        print((usage or "").strip())
        sys.exit(0)
    name, python = Path(sys.argv[0]).name, shlex.quote(sys.executable)
    print(
        f"{name}: this Python has no {', '.join(missing)}; run it with one that has, or {python} -m pip install "
        f"{shlex.join(missing)}",
        file=sys.stderr,
    )
    sys.exit(2)


def require_plotting(parser: argparse.ArgumentParser, plot: object) -> None:
    """Ends the script before anything is measured where a picture is wanted and matplotlib is missing."""
    if plot and importlib.util.find_spec("matplotlib") is None:
        from refllm.extras import how_to_install

        parser.error(f"--plot needs matplotlib, which is not installed: {how_to_install('plot')}")
