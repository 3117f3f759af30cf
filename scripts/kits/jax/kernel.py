"""In JAX: softmax, layer norm and attention, for `refllm verify`. Put your function or kernel in the place of one.

An operation is given NumPy arrays and keywords; it returns its value and a function from the gradient of the value to
the gradients of the arrays. `differentiable` makes one of a function of JAX arrays.
"""

import jax
import jax.numpy as jnp
import numpy

jax.config.update("jax_enable_x64", True)
DTYPES = ["float64", "float32", "bfloat16"]
PRECISION = {"jax": None}  # None: that of the arrays


def use_dtype(dtype):
    """NumPy has no bfloat16: its arrays are float32, and this is called first."""
    PRECISION["jax"] = jnp.bfloat16 if dtype == "bfloat16" else None


def differentiable(forward):
    def there(x):
        return jnp.array(x, PRECISION["jax"])

    def back_again(x):
        return numpy.array(x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x)

    def operation(*arrays, **keywords):
        y, pullback = jax.vjp(lambda *inputs: forward(*inputs, **keywords), *map(there, arrays))

        def back(dy):
            found = tuple(back_again(x) for x in pullback(there(dy)))
            return found if len(found) > 1 else found[0]

        return back_again(y), back

    return operation


@differentiable
def softmax(x):
    nothing = (x == -jnp.inf).all(-1, keepdims=True)  # a row of only -infinity gives zeros
    return jnp.where(nothing, 0, jax.nn.softmax(jnp.where(nothing, 0, x), -1))


@differentiable
def layer_norm(x, g, b, *, eps):
    c = x - x.mean(-1, keepdims=True)
    return g * c * jax.lax.rsqrt((c * c).mean(-1, keepdims=True) + eps) + b


@differentiable
def attention(q, k, v, *, causal, allowed):
    T, S = q.shape[-2], k.shape[-2]
    mask = jnp.tri(T, S, S - T if causal else S, dtype=bool)
    mask = mask if allowed is None else mask & allowed
    some = mask.any(-1, keepdims=True)  # a query without any key gives zeros
    s = q @ k.swapaxes(-1, -2) / numpy.sqrt(q.shape[-1]).astype(q.dtype)
    P = jax.nn.softmax(jnp.where(mask | ~some, s, -jnp.inf), -1)
    return jnp.where(some, P, 0) @ v
