"""The C header of the specification: a function for each operation, and one for its gradient."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from refllm import spec
from refllm.shapes import sections
from refllm.verify.keywords import own_name
from refllm.verify.library.interfaces import TYPES, Argument, Interface

DTYPES = {"float64": 1, "float32": 2, "float16": 3, "bfloat16": 4, "tf32": 5, "int64": 6, "bool": 7}

START = b"/* The operations of the specification as C functions"
_TOP = """\
/* The operations of the specification as C functions, for `refllm verify --lib ./libmine.so`.
 *
 * Made by `refllm verify --header refllm.h` from the golden files {version}. Write the functions that you have; what
 * the library does not have is skipped. All are `extern "C"`.
 *
 * A tensor is a pointer to its first number, and a stride for each axis IN NUMBERS, not bytes: element (i, j) of x is
 * at data[i * strides[0] + j * strides[1]]. What is given may have any strides, negative ones too; what is written to
 * is always contiguous, row-major. A function that does not take some strides returns 1.
 *
 * Every function returns 0 (done), 1 (not supported: the case is skipped, or goes without a gradient) or any other
 * number (it failed). What is const is never written to. A gradient gets the outputs of its function as well.
 * A pointer is NULL where there is nothing: no mask, no ignored target.
 * float16 and bfloat16 are two bytes each; tf32 is held as float; bool is one byte, 0 or 1.
 */
#ifndef REFLLM_H
#define REFLLM_H

#include <stdint.h>

enum {{ {dtypes} }};

typedef struct {{
    void *data;
    const int64_t *shape;
    const int64_t *strides; /* in numbers */
    const char *name;       /* of a tensor of a tree: "norm1.g" */
    int32_t axes;
    int32_t dtype;
}} refllm_tensor;

#ifdef __cplusplus
extern "C" {{
#endif

/* Optional: why the last function returned what it did, in words, or NULL. */
const char *refllm_message(void);
"""

_END = """
#ifdef __cplusplus
}
#endif

#endif
"""


def header(interfaces: Iterable[Interface], version: str) -> str:
    """The text of refllm.h."""
    codes = ", ".join(f"REFLLM_{name.upper()} = {code}" for name, code in DTYPES.items())
    parts = [_TOP.format(version=version, dtypes=codes)]
    for interface in interfaces:
        parts += ["", _comment(interface), _prototype(interface)]
        parts += [_prototype_of_gradient(interface)] if interface.differentiable else []
    return "\n".join(parts) + _END


def forward(interface: Interface) -> list[str]:
    """The parameters of the function of an operation, in order."""
    given = [*_tensors(interface.inputs, "const "), *_keywords(interface)]
    return [*given, *_tensors(interface.outputs, "", interface.written)]


def backward(interface: Interface) -> list[str]:
    """The parameters of the function of its gradient: what the operation had, its outputs, their gradients, and what is
    written to."""
    given = [*_tensors(interface.inputs, "const "), *_keywords(interface)]
    outputs = _tensors(interface.outputs, "const ", interface.written)
    cotangents = _tensors(interface.outputs, "const ", lambda name: f"d{interface.written(name)}")
    return [*given, *outputs, *cotangents, *_tensors(interface.inputs, "", lambda name: f"d{name}")]


def _tensors(arguments: tuple[Argument, ...], qualifier: str, named: object = None) -> list[str]:
    found = []
    for argument in arguments:
        name = named(argument.name) if callable(named) else argument.name
        found.append(f"{qualifier}refllm_tensor *{name}")
        found += [f"int64_t {name}_count"] if argument.several else []
    return found


def _keywords(interface: Interface) -> list[str]:
    found = []
    for name, kind in interface.keywords:
        c_type = TYPES[kind]
        found.append(f"{c_type}{'' if c_type.endswith('*') else ' '}{name}")
    return found


def _prototype(interface: Interface) -> str:
    return _wrapped(f"int {interface.symbol}(", forward(interface))


def _prototype_of_gradient(interface: Interface) -> str:
    return _wrapped(f"int {interface.symbol}_back(", backward(interface))


def _wrapped(start: str, parameters: list[str]) -> str:
    text = start + (", ".join(p.replace(" ", "\0") for p in parameters) or "void") + ");"
    lines = textwrap.wrap(text, 118, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def _comment(interface: Interface) -> str:
    function = spec.operations().get(own_name(interface.operation))
    doc = function.__doc__ or "" if function is not None else ""
    first = doc.strip().splitlines()[0] if doc.strip() else interface.operation
    shapes = sections(doc).get("Shapes", "")
    lines = [f"{interface.operation}. {first}", *([shapes] if shapes else [])]
    wrapped = [part for line in lines for part in textwrap.wrap(line, 112, break_long_words=False)]
    return "/* " + "\n * ".join(wrapped).replace("*/", "* /") + " */"
