"""Functions behind a border: NumPy arrays go in and come out, the work is done on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy

from refllm.backend import namespace, on_device, to_device, to_host


def across(functions: Mapping[str, Callable[..., Any]], device: str) -> dict[str, Callable[..., Any]]:
    """The same functions, and their pullbacks, with every array that they are given on the device."""
    return {name: _across(function, device) for name, function in functions.items()}


def _across(function: Callable[..., Any], device: str) -> Callable[..., Any]:
    def there(x: Any) -> Any:
        return _moved(x, lambda a: to_device(a, device))

    def run(*arguments: Any, **keywords: Any) -> Any:
        return _moved(function(*there(arguments), **there(keywords)), to_host, there)

    return run


def _moved(x: Any, move: Callable[[Any], Any], there: Callable[[Any], Any] | None = None) -> Any:
    """x with every array in it moved; with `there`, functions in it are pullbacks and get the border too."""
    if isinstance(x, dict):
        return {name: _moved(child, move, there) for name, child in x.items()}
    if isinstance(x, list | tuple):
        return type(x)(_moved(child, move, there) for child in x)
    if there is not None and callable(x):
        return lambda *dy: _moved(x(*there(dy)), to_host)
    return move(x) if _is_array(x) else x


def _is_array(x: Any) -> bool:
    try:
        namespace(x)
    except TypeError:
        return False
    return isinstance(x, numpy.ndarray) or on_device(x)
