"""What may stand in the place of an expression. What is written more often costs less."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from refllm.verify.edits.source import Source, is_atom

OPERATORS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
SIGNS: dict[type[ast.operator], str] = {**OPERATORS, ast.MatMult: "@"}
COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
# words of the text that are taken for each other
ALIKE = (
    {"sin", "cos"}, {"exp", "sigmoid", "tanh"}, {"mean", "sum"}, {"softmax", "log_softmax"}, {"sqrt", "log"},
    {"layer_norm", "rms_norm"}, {"relu", "gelu_erf", "gelu_tanh", "silu"}, {"rotary_halves", "rotary_interleaved"},
    {"t5_bias_causal", "t5_bias_bidirectional"}, {"max", "min"}, {"adam", "adamw"}, {"stack", "concatenate"},
)  # fmt: skip
# what an argument may be fixed at, whatever was asked for
FIXED = {
    "eps": ("0.0", "1e-3", "1e-5", "1e-6", "1e-8", "1e-12"),
    "causal": ("True", "False"),
    "attention_mask": ("None", "None if attention_mask is None else ~attention_mask"),
    "token_mask": ("None", "None if token_mask is None else ~token_mask"),
    "dropout_mask": ("~dropout_mask", "dropout_mask | True"),
    "ignore": ("None", "-100", "-1", "0"),
    "reduction": ('"mean"', '"sum"', '"none"'),
    "smoothing": ("0.0", "0.1"),
    "base": ("10000.0", "500000.0"),
    "positions": ("positions * 0", "positions + 1", "positions - 1", "arange(positions.shape[-1])"),
    "step": ("1", "step - 1", "step + 1"),
    "decay": ("0.0", "-decay"),
    "momentum": ("0.0", "0.9"),
    "rate": ("0.0", "1 - rate"),
    "temperature": ("1.0", "1 / temperature", "temperature * temperature"),
    "top_k": ("None", "None if top_k is None else top_k + 1", "None if top_k is None else top_k - 1"),
    "top_p": ("None", "None if top_p is None else 1 - top_p"),
    "length_penalty": ("0.0", "1.0", "-length_penalty"),
    "farthest": ("128",),
    "beta1": ("0.9", "beta2"),
    "beta2": ("0.999", "beta1"),
}
# the words whose arguments are numbers to which something may be done
OF_NUMBERS = {"power", "sin", "cos", "exp", "log", "sqrt", "tanh", "_tanh", "sigmoid", "erfc", "turn", "softmax"}
INFINITIES = ("-1e4", "-1e9", "-100.0", "-10.0", "-1.0", "0.0", "1e-9", "-65504.0")


def alternatives(text: Source, node: ast.expr) -> Iterator[tuple[str, float]]:
    """What may stand in the place of an expression, and what that costs."""
    if isinstance(node, ast.BinOp):
        yield from _operations(text, node)
    elif isinstance(node, ast.UnaryOp):
        yield text.segment(node.operand), 1
    elif isinstance(node, ast.BoolOp):
        yield from ((text.segment(value), 1) for value in node.values)
    elif isinstance(node, ast.Compare):
        yield from _comparisons(text, node)
    elif isinstance(node, ast.IfExp):
        yield from ((text.segment(part), 1) for part in (node.body, node.orelse))
    elif isinstance(node, ast.Call):
        yield from _calls(text, node)
    elif isinstance(node, ast.Constant):
        yield from _constants(text, node)
    elif isinstance(node, ast.Name):
        yield from _names(text, node)
    elif isinstance(node, ast.Attribute) and node.attr == "T":
        yield text.segment(node.value), 1
    elif isinstance(node, ast.Tuple):
        yield from _tuples(text, node)
    yield from _with_few_digits(text, node)
    if _is_value(text, node):
        yield from _wrapped(text, node)


def _with_few_digits(text: Source, node: ast.expr) -> Iterator[tuple[str, float]]:
    """A number as somebody copied it."""
    if _is_number(text, node) or (isinstance(node, ast.Constant) and isinstance(node.value, float)):
        for n in range(2, 9):
            yield from ((f"{word}({text.segment(node)}, {n})", 1.3) for word in ("digits", "cut_off"))


def _operations(text: Source, node: ast.BinOp) -> Iterator[tuple[str, float]]:
    left, right, kind = text.segment(node.left), text.segment(node.right), type(node.op)
    yield left, 1
    yield right, 1 if kind is ast.Add else 1.2
    if kind in OPERATORS:
        tight = [_tight(left), _tight(right)]
        for other, sign in OPERATORS.items():
            if other is not kind:
                yield f"{tight[0]} {sign} {tight[1]}", 1.2
    if kind in (ast.Sub, ast.Div, ast.MatMult):
        yield f"{_tight(right)} {SIGNS[kind]} {_tight(left)}", 1.4
    if kind is ast.MatMult:
        yield f"{_tight(left)} @ swap({right})", 1.4
        yield f"swap({left}) @ {_tight(right)}", 1.4
        yield f"{_tight(left)} * {_tight(right)}", 1.6
        for dtype in ("float16", "bfloat16"):
            product = f'rounded({left}, "{dtype}") @ rounded({right}, "{dtype}")'
            yield from ((f'rounded({product}, "{dtype}")', 1.4), (product, 1.45))
    if kind in (ast.BitAnd, ast.BitOr):
        yield f"{_tight(left)} {'|' if kind is ast.BitAnd else '&'} {_tight(right)}", 1
        yield f"{_tight(left)} & ~{_tight(right)}", 1.3
    if kind is ast.Div:
        yield f"{_tight(left)} / sqrt({right})", 1.3
        yield f"{_tight(left)} / {_tight(right)} / {_tight(right)}", 1.4
        for array in _arrays(text)[:2] if left.startswith(("total(", "sum(")) else ():
            yield from ((f"{_tight(left)} / {size}", 1.35) for size in (f"len({array})", f"{array}.size"))
    first = node.left
    if kind in SIGNS and isinstance(first, ast.Call) and len(first.args) == 1 and not first.keywords:
        call, argument = text.segment(first.func), text.segment(first.args[0])
        yield f"{call}({argument} {SIGNS[kind]} {_tight(right)})", 1.3  # for f(a) + b


def _comparisons(text: Source, node: ast.Compare) -> Iterator[tuple[str, float]]:
    if len(node.ops) != 1 or type(node.ops[0]) not in COMPARISONS:
        return
    yield from ((value, 0.9 if _is_answered(text, node) else 1.1) for value in ("True", "False"))
    left, right = text.segment(node.left), text.segment(node.comparators[0])
    if any(isinstance(x, ast.Constant) and isinstance(x.value, str) for x in (node.left, node.comparators[0])):
        return  # words are equal or not, and none is larger
    for kind, sign in COMPARISONS.items():
        if not isinstance(node.ops[0], kind):
            yield f"{left} {sign} {right}", 1
    for change in ("+ 1", "- 1"):
        yield f"{left} {COMPARISONS[type(node.ops[0])]} {right} {change}", 1.1


def _is_answered(text: Source, node: ast.AST) -> bool:
    """Whether the function returns this comparison."""
    parent = text.parents.get(node)
    return isinstance(parent, ast.Return) or (isinstance(parent, ast.Call) and parent in text.returned())


def _calls(text: Source, node: ast.Call) -> Iterator[tuple[str, float]]:
    name, arguments = text.segment(node.func), [text.segment(a) for a in node.args]
    if text.is_infinity(node):
        yield from ((x, 1.0) for x in INFINITIES)
        return
    keywords = [f"{k.arg}={text.segment(k.value)}" for k in node.keywords]
    if arguments and name not in ("range", "len", "max", "min", "arange"):
        yield arguments[0], 1.5 if isinstance(node.func, ast.Attribute) else 1
    if len(arguments) == 1 and not keywords and name not in ("range", "len", "list", "int"):
        yield f"{name}({name}({arguments[0]}))", 1.5
        inner = node.args[0]
        if isinstance(inner, ast.BinOp) and type(inner.op) in OPERATORS:  # f(a + b): f(a) + b
            a, b, sign = text.segment(inner.left), text.segment(inner.right), OPERATORS[type(inner.op)]
            yield f"{name}({a}) {sign} {_tight(b)}", 1.2
            yield f"{_tight(a)} {sign} {name}({b})", 1.4
    for i, j in pairs(len(arguments)):
        swapped = [*arguments]
        swapped[i], swapped[j] = swapped[j], swapped[i]
        yield f"{name}({', '.join([*swapped, *keywords])})", 1.2
    yield from ((f"{other}({', '.join([*arguments, *keywords])})", 1.3) for other in alike(name))
    if isinstance(node.func, ast.Attribute) and node.func.attr == "sum" and not arguments:
        yield f"{text.segment(node.func.value)}.size", 1.1
    if isinstance(node.func, ast.Attribute) and node.func.attr == "swapaxes":
        yield f"reshaped({', '.join([text.segment(node.func.value), *arguments])})", 1.1
    if name in ("concatenate", "stack") and is_list(arguments[0]):
        yield f"{name}({', '.join([f'{arguments[0]}[::-1]', *keywords])})", 1.25
    yield from _words(text, name, arguments, keywords)
    for n, keyword in enumerate(node.keywords):
        kept = [k for m, k in enumerate(keywords) if m != n]
        for value in _keyword_values(keyword.arg or "", text.segment(keyword.value)):
            yield f"{name}({', '.join([*arguments, *kept, f'{keyword.arg}={value}'])})", 1.1


def _words(text: Source, name: str, arguments: list[str], keywords: list[str]) -> Iterator[tuple[str, float]]:
    """What is taken for a word of the text."""
    first = arguments[0] if arguments else ""
    array = text.positional[0] if text.positional else "x"
    if name == "mean":
        yield f"sum({first}) / ({array}.shape[-1] - 1)", 1.1
        yield f"sum({first}, axis=0) / len({array})", 1.3
        yield f"total({first}) / {array}.size", 1.2
    elif name == "sum" and not keywords:
        yield f"sum({first}, axis=-2)", 1.1
        yield f"sum({first}, axis=0)", 1.3
        yield f"total({first})", 1.3
    elif name == "exp":
        yield f"power(2, {first})", 1.3
    elif name == "log":
        yield f"log({first}) / log(2)", 1.2
    elif name == "scatter_add":
        yield from ((f"{other}({', '.join(arguments)})", 1.1) for other in ("scatter_last", "scatter_mean"))
        yield f"scatter_add({first} + ({first} == 0) * {arguments[-1]}, {', '.join(arguments[1:])})", 1.5
    elif name == "linear" and len(arguments) == 3:
        yield f"matmul({', '.join(arguments[:2])})", 1.2
    elif name == "swap":
        yield f"reshaped({first}, -1, -2)", 1.3
    elif name == "flat":
        yield f"flat({first})[-1:]", 1.4
    elif name == "rows":
        yield f"flat({first})[-1]", 1.4
        yield f"flat({first})[0]", 1.4
        yield f"rows({first}) / len(flat({first}))", 1.2
    elif name == "top":
        yield "0", 1.1
        yield f"highest({first})", 1.2
    elif name in ("softmax", "log_softmax"):
        yield f"columns({name})({', '.join(arguments)})", 1.1
    elif name == "where" and len(arguments) == 3:
        mask, x, y = arguments
        yield from ((x, 1.0), (f"where(~{_tight(mask)}, {x}, {y})", 1.1), (f"{_tight(x)} + {_tight(mask)}", 1.3))
        yield from ((f"{_tight(x)} * {_tight(mask)}", 1.2), (y, 1.5))


def is_list(words: str) -> bool:
    """Whether this is a list that stands there as such."""
    return words.startswith("[") and words.endswith("]")


def _constants(text: Source, node: ast.Constant) -> Iterator[tuple[str, float]]:
    value = node.value
    if isinstance(value, bool):
        yield str(not value), 1
    elif isinstance(value, int | float):
        others = [value + 1, value - 1, -value, 2 * value, 0, 1, 10 * value, value / 10]
        others += [value / 2] if isinstance(value, float) or value % 2 else [value // 2]
        yield from ((repr(x), 1.1) for x in others if x != value)


def _names(text: Source, node: ast.Name) -> Iterator[tuple[str, float]]:
    parent = text.parents[node]
    if isinstance(parent, ast.Call) and node is parent.func:
        return
    place = 1.4 if isinstance(parent, ast.Attribute) else 1.1
    for other in text.in_scope(node):
        if other != node.id:
            yield other, place
    if len(node.id) == 1 and node.id.isupper() and text.positional:  # a dimension
        for array in text.positional[:3]:
            yield from ((f"{array}.shape[{axis}]", 1.4) for axis in (-1, -2, -3))
            yield from ((f"({node.id} * {array}.shape[{axis}])", 1.5) for axis in (-1, -2, -3))
    if isinstance(parent, ast.BinOp):
        for keyword in text.keywords:
            yield from ((f"((1 - {keyword}) * {node.id})", 1.4), (f"({keyword} * {node.id})", 1.5))
    if node.id in _cotangents(text) and place == 1.1:
        yield f"({node.id} * 0 + 1)", 1.1
    if _counts(text, node):
        yield from ((f"{node.id} {change}", 1.1) for change in ("+ 1", "- 1", "+ 2", "- 2", "// 2", "* 2"))


def _tuples(text: Source, node: ast.Tuple) -> Iterator[tuple[str, float]]:
    parts = [text.segment(x) for x in node.elts]
    if isinstance(text.parents[node], ast.Subscript | ast.Assign) and node not in text.returned():
        return
    for i, j in pairs(len(parts)):
        swapped = [*parts]
        swapped[i], swapped[j] = swapped[j], swapped[i]
        yield ", ".join(swapped), 1.3


def _wrapped(text: Source, node: ast.expr) -> Iterator[tuple[str, float]]:
    """Something done to a value that nothing should be done to."""
    if _gives_a_pullback(text, node):
        return
    e, tight = text.segment(node), _tight(text.segment(node))
    one = 1.05 if "arange(" in e else 1.5
    yield from ((f"{tight} {change}", one) for change in ("- 1", "+ 1"))
    for other in (f"-{tight}", f"{tight} * 2", f"{tight} / 2", f"1 / {tight}"):
        yield other, 1.5
    for other in (f"{tight} * {tight}", f"sqrt({e})", f"swap({e})", f"{tight} * 0", f"exp({e})", f"log({e})"):
        yield other, 1.6
    if isinstance(parent := text.parents.get(node), ast.Call) and text.segment(parent.func) in ("sin", "cos", "turn"):
        yield f"{tight} * pi() / 180", 1.5
    for dtype in ("bfloat16", "float16", "float32"):
        yield f'rounded({e}, "{dtype}")', 1.45
    if not text.in_pullback(node):
        yield f"constant({e})", 1.4
    if isinstance(node, ast.Call):
        yield from _of_calls(text, node)
    if node in text.returned() or text.in_pullback(node):
        for size in _sizes(text):
            yield f"{tight} / {size}", 1.4
            yield from ((f"{tight} * {size}", 1.5), (f"{tight} * sqrt({size})", 1.5), (f"{tight} / sqrt({size})", 1.5))


def _of_calls(text: Source, node: ast.Call) -> Iterator[tuple[str, float]]:
    """The mean over a list for its sum; gradients that add up from step to step."""
    words = text.segment(node)
    if len(node.args) == 1 and isinstance(node.args[0], ast.Name) and node in text.returned():
        yield f"{words} / len({text.segment(node.args[0])})", 1.3
    if text.segment(node.func).endswith("_back") and not text.in_pullback(node):
        yield f"accumulated({words})", 1.3


def _gives_a_pullback(text: Source, node: ast.AST) -> bool:
    parent = text.parents.get(node)
    return isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Tuple)


def _is_value(text: Source, node: ast.expr) -> bool:
    """Whether something may be done to the whole of this: what is assigned, returned, divided by, or a gradient."""
    parent = text.parents.get(node)
    if isinstance(node, ast.Tuple | ast.Lambda | ast.List | ast.Dict | ast.ListComp):
        return False
    if isinstance(parent, ast.Assign | ast.Dict):
        return True
    if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Div) and node is parent.right:
        return True
    if isinstance(parent, ast.Call) and node in parent.args:
        return text.segment(parent.func) in OF_NUMBERS
    return node in text.returned()


def _sizes(text: Source) -> list[str]:
    arrays = _arrays(text)[:3]
    return [f"{name}.shape[{axis}]" for name in arrays for axis in (-1, 0)] + [
        f"len(flat({name}))" for name in arrays[:1]
    ]


def _arrays(text: Source) -> list[str]:
    return [name for name in text.positional if name not in ("p", "config")]


def _is_number(text: Source, node: ast.expr) -> bool:
    """Whether this is computed from numbers that stand in the text alone, and is none of them."""
    names = [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]
    there = any(isinstance(n, ast.Constant) for n in ast.walk(node))
    return there and set(names) <= {"sqrt", "pi", "log", "ratio"} and isinstance(node, ast.Call | ast.BinOp)


def _cotangents(text: Source) -> set[str]:
    return {a.arg for f in text.inner for a in f.args.args}


def _counts(text: Source, node: ast.AST) -> bool:
    """Whether this is a whole number that counts or limits something."""
    parent = text.parents.get(node)
    while isinstance(parent, ast.BinOp):
        node, parent = parent, text.parents.get(parent)
    if isinstance(parent, ast.Call):
        return isinstance(parent.func, ast.Name) and parent.func.id in ("arange", "range", "ratio", "power")
    words = [x for x in ast.walk(parent) if isinstance(x, ast.Constant) and isinstance(x.value, str)] if parent else []
    return isinstance(parent, ast.Slice | ast.Compare) and not words


def _tight(text: str) -> str:
    return text if is_atom(text) else f"({text})"


def pairs(count: int) -> Iterable[tuple[int, int]]:
    return ((i, j) for i in range(count) for j in range(i + 1, count))


def alike(name: str) -> list[str]:
    return [other for group in ALIKE if name in group for other in sorted(group) if other != name]


def _keyword_values(name: str, value: str) -> Iterator[str]:
    if name == "axis":
        yield from (x for x in ("-1", "-2", "-3", "0", "1") if x != value)
    elif name in FIXED:
        yield from (x for x in FIXED[name] if x != value and x.replace(".", "").lstrip("-").isalnum())
