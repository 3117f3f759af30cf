"""Implementations that answer the sized cases: each is made of parts, of which the first that can answers a case.

PyTorch and JAX are what people call (by the tables of signatures) and, for what they have no function for, the few
lines of scripts/adapters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from refllm.verify import adapter, plugging, reference
from refllm.verify.adapter import Functions
from refllm.verify.kernels import bank
from refllm.verify.kernels.in_type import in_type
from spread import composed, libraries, orders

WIDE = ("float64", "float32")
SLOW = 300_000  # the work of a case for sums that are written out in NumPy
STEPS = 5  # of a recurrent layer that is compiled
EVERY = ("float64", *libraries.ALL)


@dataclass(frozen=True)
class Whole:
    """An implementation, and the plan that fits it, by dtype. `parts` is called where it is measured first."""

    name: str
    parts: Callable[[], list[Functions]]
    fits: Mapping[str, libraries.PlanSaid]
    most: int = 1_000_000  # the work of a case that it is given (sized.work)


def implementations() -> Iterator[Whole]:
    """Every one that is here."""
    in_products = dict.fromkeys(WIDE, "fused")
    yield Whole("refllm", lambda: [_of(reference.functions())], in_products)
    for name, functions in orders.of_text():
        yield Whole(name, lambda functions=functions: [_of(functions)], in_products, SLOW)  # type: ignore[misc]
    kernels = bank.implementation()
    yield Whole("NumPy in tiles and blocks", lambda: [in_type(kernels, dtype) for dtype in EVERY[1:]] + [kernels],
                dict.fromkeys(EVERY, "fused"))  # fmt: skip
    eager = dict.fromkeys(EVERY, "eager")
    by_torch: dict[str, libraries.PlanSaid] = {**eager, "bfloat16": "narrow", "float16": "narrow"}
    if libraries.installed("torch"):
        yield Whole("PyTorch, eager", _eager, by_torch)
        for name in ("math", "flash"):
            plans = dict.fromkeys(EVERY, "fused" if name == "flash" else "eager")
            yield Whole(f"PyTorch SDPA, {name}", lambda name=name: _of_sdpa(name), plans)  # type: ignore[misc]
        yield Whole("torch.compile", _compiled, by_torch)
    if libraries.installed("jax"):
        narrow: dict[str, libraries.PlanSaid] = dict.fromkeys(("bfloat16", "float16"), libraries.NARROW)
        in_jax = dict.fromkeys(WIDE, "eager") | narrow
        yield Whole("JAX, jit", _of_jax, in_jax)
        yield Whole("jax.nn, Flax, Optax", _jax_tables, in_jax)
    if libraries.installed("onnxruntime"):
        yield Whole("ONNX Runtime", _of_onnx, {"float32": "fused", "float16": "eager"})


def _of(functions: Mapping[str, Callable[..., Any]], use: Any = None) -> Functions:
    return Functions("part", functions, {}, EVERY, use)


def _by_table(signatures: str, *modules: str) -> list[Functions]:
    """What a library has, asked by its table."""
    found = [adapter.from_file(module, plugging.Plug(signatures=signatures)) for module in modules]
    return [f for f in found if f.functions]


def _own(name: str) -> Functions:
    found = adapter.from_file(libraries.ADAPTERS / f"{name}_adapter.py", stays=True)  # where Dynamo looks for it
    return Functions(name, found.functions, found.conventions, EVERY, found.use_dtype)


def _eager() -> list[Functions]:
    """PyTorch as it is called, but that attention is one operation after the other."""
    found = _own("torch")
    make = found.functions["differentiable"]
    plain = make(libraries.plain_attention)
    tables = _by_table("torch", "torch.nn.functional", "torch", "torch.nn", "torch.optim", "torch.nn.utils")
    clip = libraries.clipping(found)
    own = _of({"attention": plain, "clip_by_global_norm": clip}, found.use_dtype)
    return [own, *tables, found, _of(_composed_in_torch(found, make), found.use_dtype)]


def _composed_in_torch(found: Functions, make: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    lines = composed.of_torch(found.functions, libraries.plain_attention)
    return {name: make(forward) for name, forward in lines.items()}


def _of_sdpa(name: str) -> list[Functions]:
    from torch.nn.attention import SDPBackend  # type: ignore[import-not-found,unused-ignore]

    found = _own("torch")
    kernels = found.functions["fused"].__globals__["KERNELS"]
    kernel = {"math": SDPBackend.MATH, "flash": SDPBackend.FLASH_ATTENTION}[name]
    functions = {n: libraries.chosen(found.functions[n], kernels, kernel) for n in libraries.ATTENTION}
    return [_of(functions, found.use_dtype)]


def _compiled() -> list[Functions]:
    """What inductor makes of the lines of the adapter, and of functions of PyTorch that it does not call."""
    import torch  # type: ignore[import-not-found,unused-ignore]
    import torch._functorch.config  # type: ignore[import-not-found,unused-ignore]

    torch._functorch.config.donated_buffer = False  # a pullback may be called twice
    torch._dynamo.config.recompile_limit = 256  # one a shape and choice of keywords, none of them eager
    torch._dynamo.config.accumulated_recompile_limit = 4096
    found = _own("torch")
    make = found.functions["differentiable"]
    forwards = {n: inspect.getclosurevars(f).nonlocals.get("forward") for n, f in found.functions.items()
                if inspect.isfunction(f)}  # fmt: skip
    fixed = {"grouped_attention": False}  # of sizes that are symbols SymPy does not come to an end there
    compiled = {n: make(torch.compile(_few_steps(n, f), dynamic=fixed.get(n))) for n, f in forwards.items() if f}
    compiled |= _composed_in_torch(found, lambda f: make(torch.compile(f)))
    for name, rule in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        compiled[name] = found.functions["optimiser"](_compiled_rule(rule))
    compiled["clip_by_global_norm"] = libraries.clipping(found, torch.compile(torch.nn.utils.clip_grad_norm_))
    named = {
        "scaled_dot_product_attention": torch.nn.functional.scaled_dot_product_attention,
        "logsumexp": torch.logsumexp, "rms_norm": torch.nn.functional.rms_norm,
    }  # fmt: skip
    plugged = plugging.plugged({n: torch.compile(f) for n, f in named.items()}, plugging.Plug(signatures="torch"),
                               whole=True)  # fmt: skip
    table = Functions("torch.compile", plugged.functions, plugged.conventions, EVERY, plugged.use_dtype, None,
                      plugged.bridge)  # fmt: skip
    return [table, _of(compiled, found.use_dtype)]


def _compiled_rule(rule: Callable[..., Any]) -> Callable[..., Any]:
    """An optimiser whose step is compiled."""
    import torch

    def made(*parameters: Any, **how: Any) -> Any:
        chosen = rule(*parameters, **how)
        chosen.step = torch.compile(chosen.step)
        return chosen

    return made


def _few_steps(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
    """Inductor unrolls the steps of a recurrent layer: it is given those of a few."""
    if name not in ("rnn", "lstm"):
        return forward

    def of_few(x: Any, *others: Any, **keywords: Any) -> Any:
        if x.shape[1] > STEPS:
            raise NotImplementedError(f"more than {STEPS} steps")
        return forward(x, *others, **keywords)

    return of_few


def _of_jax() -> list[Functions]:
    """The lines of the adapter under jit, and the libraries' own functions for the rest."""
    found = _own("jax")
    lines = composed.of_jax(found.functions)
    make = found.functions["differentiable"]
    return [found, *_jax_tables(), _of({n: make(f) for n, f in lines.items()}, found.use_dtype)]


def _jax_tables() -> list[Functions]:
    return _by_table("jax", "jax.nn", "flax.linen", "optax", "jax.numpy")


def _of_onnx() -> list[Functions]:
    import os

    os.environ["ONNX_BY"] = "runtime"
    operators, found = adapter.from_file(libraries.ADAPTERS / "onnx_operators.py"), _own("onnx")
    padded = {name: found.functions[name] for name in ("rnn", "lstm")}  # whose own answer behind the end is zeros
    return [_of(padded), operators, found]
