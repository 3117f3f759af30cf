"""The inputs that a port is tried on, chosen for what they show: one token, at which no place and no score has a say;
two; a text; one with padding; one that reaches beyond a window or the near distances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy

from refllm.backend import Array
from refllm.verify.ports.program import Program

TEXT = 7  # tokens of the text
FAR = 40  # of the long one, at least
MOST_FAR = 640  # and at most; a window of more is not tried
SEED = 18


@dataclass(frozen=True)
class Input:
    """Ids (B, T), and what the model takes beside them: `mask` true at the text, `segments`, `source`."""

    name: str
    about: str
    arrays: dict[str, Array] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return sum(int(self.arrays[name].size) for name in ("ids", "source") if name in self.arrays)

    @property
    def mask(self) -> Array | None:
        return self.arrays.get("mask")


def inputs(program: Program, text_ids: Array | None = None) -> list[Input]:
    """Those for a model; `text_ids` (T,) are the tokens of a text of the user's, in the place of drawn ones."""
    draw = _drawing(program)
    found = [
        Input("one", "one token", _arrays(program, draw, 1, 1)),
        Input("two", "two tokens", _arrays(program, draw, 1, 2)),
        Input("text", "a short text", _text(program, draw, text_ids)),
    ]
    if "mask" in program.keys and context(program) >= 4:
        found.append(Input("padded", "two texts, the second padded", _padded(program, draw)))
    if (far := _far(program)) > TEXT:
        found.append(Input("far", f"{far} tokens", _arrays(program, draw, 1, far)))
    return found


def untried(program: Program) -> Iterator[str]:
    """What no input reaches, in words."""
    window = max([int(w) for w in program.config.get("windows", ())], default=0)
    if window >= MOST_FAR:
        yield f"the window of {window:,} tokens: no input is as long"
    if program.config.get("scaling") == "dynamic" and program.config["scaling_original"] >= MOST_FAR:
        yield f"positions beyond {program.config['scaling_original']:,}, which alone are scaled: no input is as long"


Draw = Callable[..., Array]


def _drawing(program: Program) -> Draw:
    """Ids that repeat little, from all over the vocabulary."""
    random = numpy.random.default_rng(SEED)
    vocabulary = int(program.config["vocabulary"])

    def draw(*shape: int) -> Array:
        return random.integers(0, vocabulary, shape)

    return draw


def context(program: Program) -> int:
    return int(program.config["context"])


def _arrays(program: Program, draw: Draw, rows: int, tokens: int) -> dict[str, Array]:
    T = min(tokens, context(program))
    ids = draw(rows, T)
    if program.model == "bert":
        segments = (numpy.arange(T) >= (T + 1) // 2).astype("int64") % int(program.config["segments"])
        return {"ids": ids, "mask": numpy.ones((rows, T), bool), "segments": numpy.tile(segments, (rows, 1))}
    if program.model == "encoder_decoder":
        S = min(T + 1, context(program))
        return {"source": draw(rows, S), "mask": numpy.ones((rows, S), bool), "ids": ids}
    return {"ids": ids, "mask": numpy.ones((rows, T), bool)}


def of_text(program: Program, ids: Array, target: Array | None = None) -> Input:
    """The tokens of a text (T,) as an input; of an encoder-decoder they are its source, and `target` what it writes."""
    arrays = _text(program, _drawing(program), ids)
    if target is not None:
        arrays["ids"] = numpy.asarray(target, "int64")[None]
    return Input("text", "the text", arrays)


def _text(program: Program, draw: Draw, given: Array | None) -> dict[str, Array]:
    found = _arrays(program, draw, 1, TEXT if given is None else len(given))
    if given is None:
        return found
    name = "source" if program.model == "encoder_decoder" else "ids"
    cut = numpy.asarray(given, "int64")[None, : context(program)]
    return {**found, name: cut, **({"mask": numpy.ones(cut.shape, bool)} if "mask" in found else {})}


def _padded(program: Program, draw: Draw) -> dict[str, Array]:
    found = _arrays(program, draw, 2, min(6, context(program)))
    mask = found["mask"].copy()
    mask[1, mask.shape[1] // 2 :] = False
    return {**found, "mask": mask}


def _far(program: Program) -> int:
    """Beyond a window, and beyond the distances of T5 that have a bucket each and those that share the last one."""
    config = program.config
    window = max([int(w) for w in config.get("windows", ()) if w < MOST_FAR], default=0)
    farthest = int(config.get("farthest", 0)) if config.get("positions") == "relative" else 0
    trained = int(config["scaling_original"]) if config.get("scaling") == "dynamic" else 0
    trained = trained if trained < MOST_FAR else 0
    return min(max(FAR, window + 9, farthest + 9, trained + 9), MOST_FAR, context(program))
