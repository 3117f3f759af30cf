"""The rotation in fewer digits than it needs, and what is added after it that belongs before it."""

from __future__ import annotations

from collections.abc import Iterator
from types import FunctionType

from refllm.spec import rotary, rotary_scaling
from refllm.verify.edits import Edit
from refllm.verify.ports.mistakes.habit import Habit, edited
from refllm.verify.ports.published import llama

FREQUENCIES = "frequencies(config, length=x.shape[-2])"
ANGLE = f"positions[:, None] * {FREQUENCIES}"
TABLES = "like(cos(angle), a), like(sin(angle), a)"
NARROW = ("bfloat16", "float16")
BIASED = {"q": ("bq", "heads", "queries"), "k": ("bk", "kv_heads", "keys")}


def narrow_rotations() -> Iterator[Habit]:
    """Frequencies, angles, or the tables of sine and cosine in 16 bits: what becomes of buffers when a whole model is
    converted."""
    for dtype in NARROW:
        rounded = f'rounded({FREQUENCIES}, "{dtype}")'
        yield llama.turned, FREQUENCIES, rounded, f"the frequencies of the rotation are rounded to {dtype}"
        angle = f'rounded({ANGLE}, "{dtype}")'
        yield llama.turned, ANGLE, angle, f"the angles of the rotation are rounded to {dtype}"
        both = f'rounded(positions[:, None] * {rounded}, "{dtype}")'
        yield llama.turned, ANGLE, both, f"the frequencies and the angles of the rotation are rounded to {dtype}"
        said = f"the cosines and sines of the rotation are rounded to {dtype}"
        yield rotary.turn, TABLES, tables_in(dtype), said


def rotations_all_in_16_bits() -> Iterator[tuple[str, list[Edit]]]:
    """The same of the frequencies and of the tables at once."""
    functions: list[FunctionType] = [llama.turned, rotary.turn]  # type: ignore[list-item]
    for dtype in NARROW:
        rounded = f'rounded({FREQUENCIES}, "{dtype}")'
        for what, old, new in (
            ("frequencies", FREQUENCIES, rounded),
            ("frequencies, the angles", ANGLE, f'rounded(positions[:, None] * {rounded}, "{dtype}")'),
        ):
            said = f"the {what}, and the cosines and sines of the rotation are rounded to {dtype}"
            yield said, [edited(functions[0], old, new, said), edited(functions[1], TABLES, tables_in(dtype), said)]


def tables_in(dtype: str) -> str:
    return f'rounded(like(cos(angle), a), "{dtype}"), rounded(like(sin(angle), a), "{dtype}")'


def middles_otherwise() -> Iterator[Habit]:
    """What lies between the pairs that keep their frequency and those that have it divided, in Llama 3 and YaRN."""
    between = "between the two ends of the scaled rotation"
    llama3, yarn = rotary_scaling.llama3_frequencies, llama.yarn_frequencies
    m, r = "m = where(m < 0, 0, where(m > 1, 1, m))", "r = where(line < 0, 0, where(line > 1, 1, line))"
    for function, now, kept, divided in (
        (llama3, m, "m = where(m < 0, 0 * m, 0 * m + 1)", "m = where(m > 1, 0 * m + 1, 0 * m)"),
        (yarn, r, "r = where(line > 1, 0 * line + 1, 0 * line)", "r = where(line < 0, 0 * line, 0 * line + 1)"),
    ):
        yield function, now, kept, f"{between} the frequencies are left as they are, where a line is right"
        yield function, now, divided, f"{between} the frequencies are divided by the factor, where a line is right"
    yield llama3, m, "pass", "the shares of the scaled rotation's frequencies are not held between 0 and 1"
    yield yarn, r, "r = line", "the shares of the scaled rotation's frequencies are not held between 0 and 1"
    exchanged = f"{between} the shares of its frequencies are exchanged"
    yield llama3, m, "m = where(m < 0, 0, where(m > 1, 1, 1 - m))", exchanged
    yield yarn, r, "r = where(line < 0, 0, where(line > 1, 1, 1 - line))", exchanged
    line = "(turns - low_factor) / (high_factor - low_factor)"
    in_lengths = "(1 / turns - 1 / low_factor) / (1 / high_factor - 1 / low_factor)"
    yield (
        llama3,
        line,
        in_lengths,
        f"{between} the shares of its frequencies are a line in the wavelength, not in 1 / it",
    )


def biases_after_the_rotation() -> Iterator[Habit]:
    """Of queries and keys, or of one of them, where they have no norm between."""
    for which in ("qk", "q", "k"):
        old = tuple(f'{name} = tap("{name}", turned({name}, config=config))' for name in which)
        new = tuple(_added_after(name) for name in which)
        what = " and ".join(BIASED[name][2] for name in which)
        biases = "biases of the maps" if len(which) == 2 else "bias of the map"
        verb = "are" if len(which) == 2 else "is"
        said = f"the {biases} of {what} {verb} added after the rotation, before which is right"
        yield llama.grouped_attention, old, new, said


def _added_after(name: str) -> str:
    bias, heads, _ = BIASED[name]
    b = f'p["{bias}"].reshape(config["{heads}"], 1, -1)'
    return f'{name} = tap("{name}", turned({name} - {b}, config=config) + {b})'
