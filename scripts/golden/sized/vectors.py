"""Test vectors of the generator: golden/sized/generator.json, for who writes it in another language."""

from __future__ import annotations

from typing import Any

from golden import writer
from refllm.verify.sized import generator, probes, profiles

SEEDS = (0, 1, 2**32 + 7, 2**53 - 1)
NAME = "inputs.x"
RECIPES: list[dict[str, Any]] = [
    *({"profile": name, "shape": [3, 5]} for name in (
        "normal", "positive", "peaked", "offset", "wide", "outlier", "subnormal", "masked")),
    {"profile": "normal", "shape": [2, 2, 3], "exponent": -3},
    {"profile": "normal", "shape": []},
    {"profile": "masked", "shape": [8, 3]},
    {"profile": "constant", "shape": [3], "value": 1},
    {"profile": "integers", "shape": [2, 9], "below": 50257},
    {"profile": "integers", "shape": [2, 9], "below": 7, "start": 100, "instead": -100},
    {"profile": "count", "shape": [2, 5], "start": 131067},
    {"profile": "count", "shape": [9], "step": 5, "modulus": 9},
    {"profile": "listed", "shape": [3], "values": [0, 4, 9]},
    {"profile": "bits", "shape": [2, 9], "chance": 192},
    {"profile": "lengths", "shape": [3, 1, 4], "lengths": [4, 1, 0]},
    {"profile": "documents", "shape": [2, 5, 5], "borders": [0, 2, 4]},
    {"profile": "low", "shape": [3, 5]},
]  # fmt: skip


def content() -> bytes:
    """64-bit words are hexadecimal, since many readers of JSON round what is above 2^53."""
    record = {
        "format": 1,
        "words": [_words(seed, first) for seed in SEEDS for first in (0, 1 << 40)],
        "tensors": [_tensor(recipe, seed) for seed, recipe in enumerate(RECIPES)],
        "probes": [_probes(seed, shape) for seed, shape in enumerate([(), (1,), (33, 1025), (2, 3, 65, 96)])],
        "signs": [{"seed": 5, "name": "outputs.y", "signs": probes.signs(12, 5, "outputs.y").astype(int).tolist()}],
    }
    return (writer.dumps(record) + "\n").encode()


def _words(seed: int, first: int) -> dict[str, Any]:
    start = generator.stream(seed, NAME)
    found = [f"{int(w):016x}" for w in generator.words(start, first, 3)]
    return {"seed": seed, "name": NAME, "stream": f"{start:016x}", "first": first, "words": found}


def _tensor(recipe: dict[str, Any], seed: int) -> dict[str, Any]:
    values = profiles.made(recipe, seed, NAME).reshape(-1).tolist()
    return {"recipe": recipe, "seed": seed, "name": NAME, "values": [writer.number(x) for x in values]}


def _probes(seed: int, shape: tuple[int, ...]) -> dict[str, Any]:
    places = probes.probes(shape, seed, "outputs.y").tolist()
    return {"seed": seed, "name": "outputs.y", "shape": list(shape), "places": places}
