"""The text with every value that it gives a name shown to whoever looks on, not only those that `tap` names.

    with watched(lambda name, x: ...):        spec/array.py
        functions()["attention"](q, k, v, ...)    sees s, P, y; then dv, dP, ds, dk, dq of its pullback, and e, Z, p

After `P, softmax_back = softmax(s)` stands `P = tap("P", P)`: the text goes on with what the onlooker makes of it.

Where right implementations take other steps than the text, whose errors are larger, these stand here in its place
(`FORMS`). One is everywhere: fused attention forms Σ_s P_ts dP_ts as Σ_e dy_te y_te, for which y is read as it was
stored. Where the text goes back from y = P v through a softmax, numbers that have a `through_softmax` are asked; where
a pullback may form a normalised row again, those that have `remembered`; where there are two forms, those that have
`either`.
"""

from __future__ import annotations
import __future__

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from types import FunctionType
from typing import Any

from refllm import spec
from refllm.spec.array import tap

_LAZY_ANNOTATIONS = __future__.annotations.compiler_flag
_SHOWN = "_shown"  # the name of `tap` in the text that is made here
_THROUGH = "_through_softmax"
_REMEMBERED = "_remembered"
_EITHER = "_either"
_Statement = ast.stmt

# By module: a line of the text, and what stands here instead.
FORMS = {
    # The derivative of erfc(z) is of e^{-z²}, z = x / √2, which rounds where x² does not.
    "activation": [
        (
            "        phi = exp(-(x * x) / 2) / sqrt(2 * pi())",
            "        z = x / sqrt(2)\n"
            "        phi = _either(exp(-(x * x) / 2), exp(-(z * z)), each=True) / sqrt(2 * pi())",
        ),
    ],
    # The targets of a row add up to 1. A framework that knows the pullback of log-softmax alone forms the sum.
    "cross_entropy": [("w * exp(log_p) - t", "sum(t) * exp(log_p) - t")],
    # x - logsumexp(x) is as customary as (x - max) - log Z, and where a row is far from 0 its errors are larger.
    "softmax": [
        (
            "    y = c - log(where(Z == 0, 1, Z))",
            "    y = _either(c - log(where(Z == 0, 1, Z)), x - (top(x) + log(where(Z == 0, 1, Z))))",
        ),
    ],
    # A pullback that is given l forms e^{x - l}, and where a row is far from 0 its errors are larger.
    "log_sum_exp": [
        (
            "        return softmax(x)[0] * dl[..., None]",
            "        apart = x - l[..., None]\n        return _either(softmax(x)[0], exp(apart)) * dl[..., None]",
        ),
    ],
    # A pullback that is given the mean and 1 / σ of a row forms n again. One that goes back through x - mean(x) takes
    # the mean off at the end, so that the error of the mean leaves another pattern.
    "layer_norm": [
        (
            "        dx = r * (dn - mean(dn) - n * mean(dn * n))",
            "        dx = _either(\n"
            "            r * (dn - mean(dn) - n * mean(dn * n)),\n"
            "            r * (dn - n * mean(dn * n)) - mean(r * (dn - n * mean(dn * n))),\n"
            "        )",
        ),
        ("    def layer_norm_back(", "    n = _remembered(n, x, r)\n\n    def layer_norm_back("),
    ],
    # The pullback of a product that is broadcast stores it before it is summed.
    "routing": [
        (
            "        return dz.reshape(z.shape), sum(dy * taken, keepdims=False)",
            "        product = dy * taken\n        return dz.reshape(z.shape), sum(product, keepdims=False)",
        ),
    ],
    # A framework adds up the gradient of a weight step by step, and stores the sum after each.
    "recurrent": [
        ("    dx, dWx, db = of_what_enters(x, dz, Wx)", "    dx, dWx, db = _step_by_step(x, dz, Wx)"),
        (
            "    return flat(stack(before, axis=1)).T @ flat(stack(dz, axis=1))",
            "    dW = before[0].T @ dz[0]\n"
            "    for state, dstep in zip(before[1:], dz[1:]):\n"
            "        dW = dW + state.T @ dstep\n"
            "    return dW\n\n\n"
            "def _step_by_step(x, dz, Wx):\n"
            "    dx, _, _ = of_what_enters(x, dz, Wx)\n"
            "    dWx, db = x[:, 0].T @ dz[0], rows(dz[0])\n"
            "    for t in range(1, len(dz)):\n"
            "        dWx, db = dWx + x[:, t].T @ dz[t], db + rows(dz[t])\n"
            "    return dx, dWx, db",
        ),
    ],
}


@cache
def functions() -> dict[str, Callable[..., Any]]:
    """Every operation of the text, by name."""
    made = _modules()
    return {name: _own(f, made) for name, f in spec.operations().items()}


@cache
def names() -> frozenset[str]:
    """Every name that the text gives a value, and those of `tap`."""
    nodes = [node for _, tree in _sources() for node in ast.walk(tree)]
    return frozenset(name for node in nodes for name in (*_assigned(node), *_tapped(node)))


def _tapped(node: ast.AST) -> list[str]:
    of_tap = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tap"
    first = node.args[0] if of_tap else None  # type: ignore[attr-defined]
    return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []


@cache
def _modules() -> dict[str, dict[str, Any]]:
    """The globals of every module of the text, with functions that show their values and call each other."""
    made = {}
    for name, tree in _sources():
        module: dict[str, Any] = {"__name__": name, _SHOWN: tap, _THROUGH: _through_softmax, _REMEMBERED: _remembered}
        module[_EITHER] = _either
        shown = ast.fix_missing_locations(_Shown().visit(_Through().visit(tree)))
        exec(compile(shown, f"<shown {name}>", "exec", _LAZY_ANNOTATIONS, dont_inherit=True), module)
        made[name] = module
    for module in made.values():
        for name, value in module.items():
            module[name] = _own(value, made)
    return made


def _own(value: Any, made: dict[str, dict[str, Any]]) -> Any:
    """The function that was made of one of the text, also in a table."""
    if isinstance(value, dict) and not any(isinstance(key, str) and key.startswith("__") for key in value):
        return {key: _own(entry, made) for key, entry in value.items()}
    if isinstance(value, FunctionType) and value.__module__ in made:
        return made[value.__module__].get(value.__name__, value)
    return value


def _sources() -> Iterator[tuple[str, ast.Module]]:
    for module in pkgutil.iter_modules(spec.__path__):
        if module.name != "array":
            name = f"{spec.__name__}.{module.name}"
            yield name, ast.parse(_in_other_forms(module.name, inspect.getsource(importlib.import_module(name))))


def _in_other_forms(module: str, source: str) -> str:
    for line, other in FORMS.get(module, ()):
        if source.count(line) != 1:
            raise ValueError(
                f"refllm/spec/{module}.py no longer says {line.strip()!r} once: FORMS of named.py follows it"
            )
        source = source.replace(line, other)
    return source


def _assigned(node: ast.AST) -> list[str]:
    """The names that a statement binds, those of an entry (`dz[t] = ...`) among them."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
    found: list[str] = []
    for target in targets:
        parts = target.elts if isinstance(target, ast.Tuple) else [target]
        for part in parts:
            place = part.value if isinstance(part, ast.Starred | ast.Subscript) else part
            found += [place.id] if isinstance(place, ast.Name) else []
    return found


class _Shown(ast.NodeTransformer):
    """In functions, arrays that are given are shown, and the value of every assignment after it; an entry of a list is
    shown before it is put there."""

    _depth = 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self._depth += 1
        self.generic_visit(node)
        self._depth -= 1
        given = [_again(each.arg) for each in node.args.args]
        start = 1 if ast.get_docstring(node) is not None else 0
        node.body[start:start] = given
        return node

    def visit_Assign(self, node: ast.Assign) -> Any:
        return self._with_names(node, [t for t in node.targets if not isinstance(t, ast.Subscript)])

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        return self._with_names(node, [node.target])

    def _with_names(self, node: ast.Assign | ast.AugAssign, targets: list[ast.expr]) -> list[_Statement]:
        if not self._depth:
            return [node]
        if not targets and (names := _assigned(node)):
            node.value = _call(names[0], node.value)
        flat = [part for t in targets for part in (t.elts if isinstance(t, ast.Tuple) else [t])]
        return [node, *(_again(part.id) for part in flat if isinstance(part, ast.Name) and not _is_back(part.id))]


def _is_back(name: str) -> bool:
    """Whether it is a pullback's name, or that of nothing."""
    return name == "_" or name.endswith(("back", "backs"))


def _again(name: str) -> _Statement:
    return ast.Assign([ast.Name(name, ast.Store())], _call(name, ast.Name(name, ast.Load())))


def _call(name: str, value: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(_SHOWN, ast.Load()), [ast.Constant(name), value], [])


class _Through(ast.NodeTransformer):
    """In functions with `y = P @ v`, `softmax_back(dP)` of the pullback of y becomes `_through_softmax(...)`."""

    _output: str | None = None  # the name of y, where there is one
    _cotangent = ""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        before = self._output, self._cotangent
        self._output = _product_with_probabilities(node) or self._output
        self._cotangent = node.args.args[0].arg if node.args.args else ""
        self.generic_visit(node)
        self._output, self._cotangent = before
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        through = isinstance(node.func, ast.Name) and node.func.id == "softmax_back" and len(node.args) == 1
        if not through or self._output is None or self._cotangent != f"d{self._output}":
            return node
        names = [ast.Name(name, ast.Load()) for name in ("P", self._cotangent, self._output)]
        return ast.Call(ast.Name(_THROUGH, ast.Load()), [node.func, *node.args, *names], [])


def _product_with_probabilities(node: ast.FunctionDef) -> str | None:
    """y of a statement `y = P @ v`, P being a softmax or a part of one."""
    for statement in node.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.BinOp):
            left, target = statement.value.left, statement.targets[0]
            left = left.value if isinstance(left, ast.Subscript) else left
            of_P = isinstance(left, ast.Name) and left.id == "P" and isinstance(statement.value.op, ast.MatMult)
            if of_P and isinstance(target, ast.Name):
                return target.id
    return None


def _through_softmax(softmax_back: Callable[[Any], Any], dP: Any, P: Any, dy: Any, y: Any) -> Any:
    ds = softmax_back(dP)
    own = getattr(getattr(ds, "mathematics", None), "through_softmax", None)
    return ds if own is None else own(ds, dP, P, dy, y)


def _remembered(n: Any, x: Any, r: Any) -> Any:
    own = getattr(getattr(n, "mathematics", None), "remembered", None)
    return n if own is None else own(n, x, r)


def _either(one: Any, other: Any, *, each: bool = False) -> Any:
    own = getattr(getattr(one, "mathematics", None), "either", None)
    return one if own is None else own(one, other, each=each)
