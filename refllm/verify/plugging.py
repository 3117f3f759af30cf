"""What an adapter says of its arrays and of its names, and how its functions are called accordingly.

ARRAYS = "torch"         its functions take and return tensors      DEVICE = "cuda"      which live there
SIGNATURES = "torch"     they have PyTorch's names and parameters
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

from refllm.errors import UserError
from refllm.verify.arrays import LIBRARIES
from refllm.verify.arrays.bridge import Bridge

_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_BY_ARRAYS = ("float64", "float32", "float16")


@dataclass(frozen=True)
class Plug:
    """What is said of functions: the arrays they take, where these live, the table of their names."""

    arrays: str | None = None
    device: str | None = None
    signatures: str | None = None

    def after(self, other: Plug) -> Plug:
        """This, and where it says nothing the other."""
        return Plug(self.arrays or other.arrays, self.device or other.device, self.signatures or other.signatures)


NOTHING_SAID = Plug()


@dataclass(frozen=True)
class Plugged:
    """Functions by operation, and what follows for all of them."""

    functions: Mapping[str, Any]
    conventions: dict[str, str]
    dtypes: tuple[str, ...]
    bridge: Bridge | None
    use_dtype: Callable[[str], object] | None = None


def is_module(source: str) -> bool:
    """Whether a text is the import name of a module, not the path of a file."""
    return not source.endswith(".py") and _MODULE.fullmatch(source) is not None


def said_by(path: str | PathLike[str], module: Any) -> Plug:
    """What a module says itself. UserError if it is not a text.

    DEVICE is a name that many files have for their own: it is taken where ARRAYS or SIGNATURES is said beside it.
    """
    found = {name: getattr(module, name.upper(), None) for name in ("arrays", "device", "signatures")}
    if found["arrays"] is None and found["signatures"] is None:
        found["device"] = None
    for name, value in found.items():
        if value is not None and not isinstance(value, str):
            raise UserError(f'{path}: {name.upper()} must be a text, as {name.upper()} = "torch"')
    return Plug(**found)


def plugged(functions: Mapping[str, Any], plug: Plug, *, whole: bool) -> Plugged:
    """The functions by operation. `whole`: those that no table names have the names of operations themselves."""
    if plug.signatures is None:
        if plug.arrays is None:
            if plug.device is not None:
                raise UserError(f"a device is for arrays of a library: say ARRAYS, one of {', '.join(LIBRARIES)}")
            return Plugged(functions, {}, _BY_ARRAYS, None)
        bridge = Bridge(plug.arrays, plug.device)
        return Plugged(functions, {}, bridge.dtypes, bridge)
    from refllm.verify import signatures  # with NumPy's tape, of which a run without a table needs nothing

    table = signatures.table(plug.signatures)
    served = table.serves(functions)
    others = {name: f for name, f in functions.items() if name not in table.names} if whole else {}
    bridge = Bridge(plug.arrays or table.arrays(), plug.device)
    return Plugged({**others, **served}, table.conventions, bridge.dtypes, bridge, table.use_dtype)


def bridged(found: Any, bridge: Bridge, dtype: str, *, gradients: bool) -> Callable[..., Any]:
    """A function as one of NumPy's arrays, with the name and the parameters of its operation."""
    from refllm.verify.signatures import Signed
    from refllm.verify.signatures.asking import operation

    if isinstance(found, Signed):
        return operation(found, bridge, dtype, gradients=gradients)
    return bridge.over(found, dtype, gradients=gradients)
