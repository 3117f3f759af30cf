"""Whether a tree of parameters has the entries that a `Shapes:` line declares, and the line that says which it has not.

Names of the line that are no arguments are entries of the parameters `p`, W1 (C, F), or of one of these, span.W (C, 2).
Where entries of a dict are declared, it has these and no others; p itself may have others where `p tree` is declared.
"""

from __future__ import annotations

from typing import Any, NoReturn

from refllm.errors import KindError, UserError
from refllm.fit import require_array
from refllm.parameters import named_leaves
from refllm.shapes import Declared

_NOTHING = object()
FAULTS = (LookupError, TypeError, ValueError, AttributeError)  # what a tree that lacks something ends in


def declared_dicts(entries: tuple[Declared, ...]) -> dict[str, dict[str, bool]]:
    """The dicts of p whose entries are declared, by path, that of p itself being empty: the names of these entries, and
    whether they may be absent."""
    dicts: dict[str, dict[str, bool]] = {}
    open_ended = any(entry.name == "p" for entry in entries)
    for entry in entries:
        above, _, name = entry.name.rpartition(".")
        if not above and open_ended:
            continue
        dicts.setdefault(above, {})[name] = entry.optional
    for path in dicts:
        above, _, name = path.rpartition(".")
        if path and above in dicts:
            dicts[above][name] = False
    return dicts


def source_of_dict(path: str) -> str:
    """Source of the dict of p at that path."""
    return "p" + "".join(f"[{name!r}]" for name in path.split(".") if name)


def require_entries(operation: str, entries: tuple[Declared, ...], p: Any) -> None:
    """UserError that names the entry which is missing, is none of the declared ones, or holds something else."""
    for path, names in declared_dicts(entries).items():
        _require_names(operation, path, names, _at(p, path))
    for entry in entries:
        if entry.name != "p":
            _require_one(operation, entry, _at(p, entry.name))


def _require_names(operation: str, path: str, names: dict[str, bool], node: Any) -> None:
    """UserError unless the dict at that path has these entries, but for those that may be absent, and no others."""
    within = f"{path}." if path else ""
    listed = ", ".join(f"{within}{name}{' (or not)' * optional}" for name, optional in names.items())
    if node is _NOTHING:
        raise UserError(f"{operation}: the parameters lack {path}; give a dict of {listed}")
    if not isinstance(node, dict):
        raise KindError(f"{operation}: {path or 'p'} must be a dict of {listed}; got {type(node).__name__}")
    for name, optional in names.items():
        if name not in node and not optional:
            raise UserError(f"{operation}: the parameters lack {within}{name}; give {listed}")
    for name in node:
        if name not in names:
            raise UserError(f"{operation}: {within}{name} is none of the parameters, which are {listed}; leave it out")


def explain(operation: str, entries: tuple[Declared, ...], p: Any, error: Exception) -> None:
    """UserError if a call has failed because of its parameters; nothing if they are not to blame."""
    if entries:
        require_entries(operation, entries, p)
    elif isinstance(error, UserError):  # by who looks at the whole of a model's
        return
    for path, leaf in named_leaves(p):
        require_array(operation, path or "p", leaf)
    if isinstance(p, (list, tuple)) and isinstance(error, TypeError) and not isinstance(error, UserError):
        raise KindError(f"{operation}: p must be a dict of parameters, got {type(p).__name__}") from None
    if isinstance(error, KeyError):
        _refuse_lack(operation, p, error)


def _at(p: Any, path: str) -> Any:
    """What stands there in p; _NOTHING if nothing does."""
    for name in path.split(".") if path else ():
        p = p.get(name, _NOTHING) if isinstance(p, dict) else _NOTHING
    return p


def _require_one(operation: str, entry: Declared, value: Any) -> None:
    if value is _NOTHING:
        if not entry.optional:
            raise UserError(f"{operation}: the parameters lack {entry.name}; give those of the whole model")
        return
    if entry.kind != "tree":
        require_array(operation, entry.name, value)
    elif not isinstance(value, (dict, list)):
        raise KindError(f"{operation}: {entry.name} must be a dict of parameters, got {type(value).__name__}")


def _refuse_lack(operation: str, p: Any, error: KeyError) -> NoReturn:
    held = f"; they hold {', '.join(map(str, p))}" if isinstance(p, dict) and p else ""
    raise UserError(
        f"{operation}: there is no {error.args[0]} in what it reads of the parameters{held}; give those of this model"
    ) from None
