"""Calling code of strangers: what it raises in one line with its place, what it prints and warns of out of the way, and
what lies beside it importable."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import numpy

from refllm.verify.case import FaultError, RaisedError, UnsupportedError

_OWN = str(Path(__file__).parent)  # what lies here calls functions, and is not where they fail


def call(what: str, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    """What the function returns; UnsupportedError or FaultError for what it raises."""
    try:
        return function(*arguments, **keywords)
    except (UnsupportedError, FaultError):  # of what stands between, in words already
        raise
    except NotImplementedError as error:
        raise UnsupportedError(f"{what} says that it does not support this: {error}") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a library's panic need not be an Exception
        raise RaisedError(f"{what} raised {described(error, function)}") from None


def described(error: BaseException, function: Callable[..., Any] | None = None) -> str:
    """The exception in one line, with the place in the code that raised it; `function` was called."""
    places = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not frame.f_code.co_filename.startswith((_OWN, "<frozen "))
    ]
    if isinstance(error, SyntaxError) and error.filename:
        places, text = [(error.filename, error.lineno or 0)], error.msg
    else:
        text = " ".join(_words(error).split())
    if not places and function is not None:  # it does not take what it was called with
        code = getattr(inspect.unwrap(function), "__code__", None)
        if isinstance(code, CodeType) and not code.co_filename.startswith(_OWN):
            places = [(code.co_filename, code.co_firstlineno)]
    at = f" ({Path(places[-1][0]).name}, line {places[-1][1]})" if places else ""
    return f"{type(error).__name__}{': ' if text else ''}{text[:300]}{at}"


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an exception whose text cannot be formed
        return ""


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """What the module prints goes to stderr, so that the report is alone on stdout; its numerical warnings, which the
    report words better, are not shown."""
    with contextlib.redirect_stdout(sys.stderr), unwarned():
        yield


@contextlib.contextmanager
def unwarned() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore"), numpy.errstate(all="ignore"):
        yield


def _after_the_library() -> int:
    """The place in sys.path behind the standard library, before what is installed."""
    own = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    own |= {os.path.join(place, "lib-dynload") for place in own}
    return max((n + 1 for n, place in enumerate(sys.path) if place in own), default=len(sys.path))


@contextlib.contextmanager
def importable(folder: Path | None) -> Iterator[None]:
    """What lies beside the adapter can be imported, and sys.path is as it was afterwards. The standard library goes
    before it: a file string.py there must not take the place of the one that everybody imports."""
    if folder is None:
        yield
        return
    place = str(folder)
    sys.path.insert(_after_the_library(), place)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(place)
