"""JAX's arrays, and its reverse mode where a function gives only the value."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import numpy
from jax import numpy as jnp

from refllm.backend import Array
from refllm.verify.arrays import own_dtype

DTYPES = ("float64", "float32", "float16", "bfloat16")


def given(x: Array, dtype: str, device: str | None) -> Any:
    kind = own_dtype(x, dtype)
    held = jnp.asarray(x, {"tf32": "float32"}.get(kind, kind) if x.dtype.kind == "f" else None)
    return held if device is None else jax.device_put(held, jax.devices(device)[0])


def taken(x: Any) -> Array:
    return numpy.array(x.astype("float32") if x.dtype == jnp.bfloat16 else x)


def dtype_of(x: Any) -> str:
    return str(x.dtype)


def watched(x: Any) -> Any:
    return x


def pullback(f: Any, inputs: list[Any], outputs: list[Any]) -> Any:
    """Only what is a floating-point number has a gradient."""
    where = [i for i, y in enumerate(outputs) if isinstance(y, jax.Array) and jnp.issubdtype(y.dtype, jnp.floating)]

    def pulled(dy: list[Any], *x: Any) -> list[Any]:
        _, pull = jax.vjp(lambda *x: [f(list(x))[i] for i in where], *x)
        return list(pull(dy))

    def back(dy: list[Any]) -> list[Any]:
        along = [dy[i] for i in where]
        try:
            return jax.jit(pulled)(along, *inputs)  # one compilation, where step by step each step would have its own
        except jax.errors.JAXTypeError:  # what looks at values cannot be compiled, and may still be differentiated
            return pulled(along, *inputs)

    return back if where else None


def using(dtype: str) -> Any:
    """float64 is there only where JAX is told so, and what the user chose for the rest stays."""
    return jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext()
