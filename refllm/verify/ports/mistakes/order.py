"""Layers that are run in another order, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations

from refllm.verify.ports.candidates import Candidate
from refllm.verify.ports.evaluation import Change
from refllm.verify.ports.program import Program, Step

COST, UNLIKELY, APART = 0.6, 0.75, 0.8  # below every edit of the text


def mistakes(program: Program) -> Iterator[Candidate]:
    for kind in dict.fromkeys(step.kind for step in program.steps if step.kind.endswith("layer")):
        numbers = [n for n, step in enumerate(program.steps) if step.kind == kind]
        what = "" if kind == "layer" else f"{kind.split()[0]}'s "
        if len(numbers) > 10:
            sorted_as_text = sorted(range(len(numbers)), key=str)
            yield _ordered(kind, f"the {what}layers are in the order of their numbers as text: 0, 1, 10, 11 ...", COST,
                           partial(_at, numbers=sorted_as_text))  # fmt: skip
        if len(numbers) > 1:
            yield _ordered(kind, f"the {what}layers are in reverse", UNLIKELY, lambda layers: layers[::-1])
            yield _ordered(kind, f"the first {what}layer runs in the place of each", UNLIKELY,
                           lambda layers: [layers[0] for _ in layers])  # fmt: skip
        for m, n in combinations(range(len(numbers)), 2):
            said = f"layers {m} and {n} of the {kind.split()[0] if what else 'model'} are exchanged"
            yield _ordered(kind, said, UNLIKELY if n == m + 1 else APART, partial(_exchanged, m=m, n=n))
        for n in range(len(numbers)):
            one = f"layer {n} of the {kind.split()[0] if what else 'model'}"
            yield _ordered(kind, f"{one} is left out", UNLIKELY, partial(_without, n=n))
            yield _ordered(kind, f"{one} runs twice", UNLIKELY + 0.1, partial(_twice, n=n))


def _at(layers: list[Step], numbers: list[int]) -> list[Step]:
    return [layers[n] for n in numbers]


def _exchanged(layers: list[Step], m: int, n: int) -> list[Step]:
    return [layers[{m: n, n: m}.get(i, i)] for i in range(len(layers))]


def _without(layers: list[Step], n: int) -> list[Step]:
    return layers[:n] + layers[n + 1 :]


def _twice(layers: list[Step], n: int) -> list[Step]:
    return layers[: n + 1] + layers[n:]


def _ordered(kind: str, said: str, cost: float, order: Callable[[list[Step]], list[Step]]) -> Candidate:
    def steps(of: list[Step]) -> list[Step]:
        places = [n for n, step in enumerate(of) if step.kind == kind]
        layers = order([of[n] for n in places])
        lead = of[places[0]].place.rpartition(".")[0]
        named = [replace(layer, place=f"{lead}.{n}", inner=f"{lead}.{n}") for n, layer in enumerate(layers)]
        return of[: places[0]] + named + of[places[-1] + 1 :]

    lines = [("program", ["- for layer in layers", f"+ {said}"])]
    return Candidate(said, cost, Change(steps=steps), lambda step: step.kind == kind, lines)
