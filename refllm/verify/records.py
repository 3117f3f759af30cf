"""A record of a golden file -> a Case, everything about it checked."""

from __future__ import annotations

import re
from typing import Any

import numpy

from refllm.backend import Array
from refllm.verify.case import Answers, Case, Truth
from refllm.verify.tensors import MalformedError, from_inline, is_inline, same_bits

_ID = re.compile(r"[A-Z0-9-]+/[a-z0-9-]+")
_TEXTS = ("id", "spec", "section", "operation", "about")


class Reader:
    """Reads the records of one file; `where` says where an error is."""

    def __init__(self, path: str, number: int, tensors: dict[str, tuple[str, Array]]) -> None:
        self.where, self.tensors = f"{path}, case {number}", tensors

    def case(self, record: Any, level: int) -> Case:
        if not isinstance(record, dict):
            raise MalformedError(f"{self.where}: must be an object")
        for name in _TEXTS:
            if not isinstance(record.get(name), str) or not record[name]:
                raise MalformedError(f"{self.where}: {name} must be a text, is {record.get(name)!r:.40}")
        if not _ID.fullmatch(record["id"]):
            raise MalformedError(f"{self.where}: {record['id']!r:.80} is no id of a case; one is ATT/square")
        self.where = f"{self.where.partition(',')[0]}, {record['id']}"
        if record.get("level") != level:
            raise MalformedError(f"{self.where}: says level {record.get('level')!r:.20}, its file {level}")
        if not level:
            return self._stored(record)
        inputs = {name: self._tensor(x, f"inputs.{name}") for name, x in self._object(record, "inputs").items()}
        finite = all(numpy.isfinite(x).all() for x in inputs.values() if x.dtype.kind == "f")
        outputs, gradients = (self._truths(record, group, nan=not finite) for group in ("outputs", "gradients"))
        cotangents = {n: self._numbers(x, f"cotangents.{n}") for n, x in self._object(record, "cotangents").items()}
        self._agree(outputs, cotangents, inputs, gradients)
        if not finite and not any(_holds_nan(truth.value) for truth in outputs.values()):
            for name, x in inputs.items():
                self._require_numbers(x, f"inputs.{name}")
        if not outputs and record["operation"] != "resume":
            raise MalformedError(f"{self.where}: has no outputs, so there is nothing to verify")
        return Case(
            **{name: record[name] for name in _TEXTS}, level=level, order=self._order(record, inputs), inputs=inputs,
            keywords={name: self._keyword(x, name) for name, x in self._object(record, "keywords").items()},
            cotangents=cotangents, outputs=outputs, gradients=gradients, taps=self._truths(record, "taps"),
            conventions=self._conventions(record), alternatives=self._alternatives(record, outputs, gradients),
            erratum=record.get("erratum"), margin=record.get("margin"),
        )  # fmt: skip

    def _stored(self, record: dict[str, Any]) -> Case:
        """L0: the tensor of JSON and the one of safetensors, which must be the same, bit for bit."""
        x: Any = self._object(record, "inputs").get("x")
        if not is_inline(x) or not isinstance(x.get("tensor"), str):
            raise MalformedError(f"{self.where}: inputs.x must hold dtype, shape, data and the name of a tensor")
        array = from_inline(x, self.where)
        dtype, other = self.tensors.get(x["tensor"], ("", array))
        if dtype != x["dtype"] or not same_bits(array, other):
            raise MalformedError(f"{self.where}: the tensor in JSON and the one in safetensors are not the same")
        truth = {"y": Truth(array, None)}
        texts = {name: record[name] for name in _TEXTS}
        return Case(
            **texts, level=0, order=("x",), inputs={"x": array}, keywords={}, outputs=truth, stored=x["dtype"]
        )  # fmt: skip

    def _object(self, record: dict[str, Any], name: str) -> dict[str, Any]:
        value = record.get(name, {})
        if not isinstance(value, dict):
            raise MalformedError(f"{self.where}: {name} must be an object, is {type(value).__name__}")
        return value

    def _order(self, record: dict[str, Any], inputs: dict[str, Array]) -> tuple[str, ...]:
        order = record.get("order")
        first = {name.partition(".")[0] for name in inputs}
        if not isinstance(order, list) or not all(isinstance(n, str) for n in order) or sorted(order) != sorted(first):
            raise MalformedError(f"{self.where}: order must name each input once: {', '.join(sorted(first)) or 'none'}")
        return tuple(order)

    def _tensor(self, value: Any, what: str) -> Array:
        if is_inline(value):
            return from_inline(value, f"{self.where}, {what}")
        name = value.get("tensor") if isinstance(value, dict) else None
        if not isinstance(name, str) or name not in self.tensors:
            raise MalformedError(f"{self.where}, {what}: neither a tensor nor the name of one in the file beside")
        return self.tensors[name][1]

    def _numbers(self, value: Any, what: str) -> Array:
        """A tensor whose entries are all numbers."""
        return self._require_numbers(self._tensor(value, what), what)

    def _require_numbers(self, x: Array, what: str) -> Array:
        if _holds_nan(x):
            raise MalformedError(f"{self.where}, {what}: holds NaN, where a number must be")
        return x

    def _truths(self, record: dict[str, Any], group: str, *, nan: bool = False) -> dict[str, Truth]:
        """`nan`: whether NaN can be an answer. It follows from an input that is not finite, or from a convention."""
        found = {}
        for name, entry in self._object(record, group).items():
            what = f"{group}.{name}"
            if not isinstance(entry, dict) or "value" not in entry:
                raise MalformedError(f"{self.where}, {what}: must hold a value")
            value = (self._tensor if nan else self._numbers)(entry["value"], what)
            if "condition" not in entry and value.dtype.kind == "f":
                raise MalformedError(f"{self.where}, {what}: a floating-point value needs its condition")
            wide = self._object(self._object(record, "wide"), group)
            condition = self._condition(entry, "condition", value, what)
            found[name] = Truth(value, condition, self._condition(wide, name, value, f"wide.{what}"))
        return found

    def _condition(self, entry: dict[str, Any], name: str, value: Array, what: str) -> Array | None:
        if name not in entry:
            return None
        condition = self._tensor(entry[name], f"{what}.condition")
        if condition.shape == value.shape and _is_a_condition(condition):
            return condition
        self._require_numbers(condition, f"{what}.condition")
        if condition.shape != value.shape or not (condition >= 0).all():
            raise MalformedError(f"{self.where}, {what}: the condition must have the value's shape and no negative")
        if not numpy.isfinite(condition).all():
            raise MalformedError(f"{self.where}, {what}: the condition must be finite, or anything would pass")
        return condition

    def _agree(
        self,
        outputs: dict[str, Truth],
        cotangents: dict[str, Array],
        inputs: dict[str, Array],
        gradients: dict[str, Truth],
    ) -> None:
        """Cotangents are like the outputs and gradients like the inputs."""
        if bool(cotangents) != bool(gradients):
            raise MalformedError(f"{self.where}: cotangents and gradients come together")
        if cotangents and {n: x.shape for n, x in cotangents.items()} != {n: t.value.shape for n, t in outputs.items()}:
            raise MalformedError(f"{self.where}: the cotangents must have the names and shapes of the outputs")
        if gradients and {n: t.value.shape for n, t in gradients.items()} != {n: x.shape for n, x in inputs.items()}:
            raise MalformedError(f"{self.where}: the gradients must have the names and shapes of the inputs")

    def _keyword(self, value: Any, name: str) -> Any:
        if value is None or isinstance(value, str | int | float | bool):
            return value
        if is_inline(value) or (isinstance(value, dict) and "tensor" in value):
            return self._numbers(value, f"keywords.{name}")
        if not isinstance(value, dict) or not all(isinstance(x, str | int | float | bool) for x in value.values()):
            raise MalformedError(f"{self.where}, keywords.{name}: no number, text, tensor or configuration")
        return value

    def _conventions(self, record: dict[str, Any]) -> dict[str, str]:
        found = self._object(record, "conventions")
        if not all(isinstance(value, str) for value in found.values()):
            raise MalformedError(f"{self.where}: conventions must be texts")
        return found

    def _alternatives(
        self, record: dict[str, Any], outputs: dict[str, Truth], gradients: dict[str, Truth]
    ) -> dict[str, Answers]:
        found = {}
        for key, value in self._object(record, "alternatives").items():
            named = {pair.partition("=")[0] for pair in key.split(",")}
            if not isinstance(value, dict) or not named <= set(self._object(record, "conventions")):
                raise MalformedError(f"{self.where}: {key!r:.60} is no alternative to a convention of the case")
            found[key] = Answers(*(self._truths(value, group, nan=True) for group in ("outputs", "gradients")))
            for held, like in ((found[key].outputs, outputs), (found[key].gradients, gradients)):
                if {n: t.value.shape for n, t in held.items()} != {n: t.value.shape for n, t in like.items()} and held:
                    raise MalformedError(f"{self.where}, {key}: must hold the same names and shapes as the case")
        return found


def _holds_nan(x: Array) -> bool:
    return x.dtype.kind == "f" and bool(numpy.isnan(x).any())


def _is_a_condition(x: Array) -> bool:
    """No negative number, no infinite one and no NaN, which is equal to nothing."""
    return not x.size or (x.dtype.kind == "f" and bool(x.min() >= 0) and bool(x.max() < numpy.inf))
