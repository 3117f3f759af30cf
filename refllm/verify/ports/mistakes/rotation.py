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
        (yarn, r, "r = where(line >= 1, 0 * line + 1, 0 * line)", "r = where(line <= 0, 0 * line, 0 * line + 1)"),
    ):
        yield function, now, kept, f"{between} the frequencies are left as they are, where a line is right"
        yield function, now, divided, f"{between} the frequencies are divided by the factor, where a line is right"
    yield llama3, m, "pass", "the shares of the scaled rotation's frequencies are not held between 0 and 1"
    yield yarn, r, "r = line", "the shares of the scaled rotation's frequencies are not held between 0 and 1"
    yield (
        llama3,
        m,
        "m = where(m < 0, 0, where(m > 1, 1, 1 - m))",
        f"{between} the shares of its frequencies are exchanged",
    )
    said = "the shares of the scaled rotation's frequencies are exchanged: pairs that turn often have theirs divided"
    yield yarn, r, "r = 1 - where(line < 0, 0, where(line > 1, 1, line))", said
    line = "(turns - low_factor) / (high_factor - low_factor)"
    in_lengths = "(1 / turns - 1 / low_factor) / (1 / high_factor - 1 / low_factor)"
    yield (
        llama3,
        line,
        in_lengths,
        f"{between} the shares of its frequencies are a line in the wavelength, not in 1 / it",
    )


def biases_after_the_rotation() -> Iterator[Habit]:
    """Of queries and keys, or of queries alone, where they have no norm between."""
    for which in ("qk", "q"):
        yield llama.grouped_attention, *_words_of(which), _said(which)


def key_bias_after_the_rotation() -> Edit:
    """Of keys alone. It adds the same to all scores of a query, so that it cannot be told from a bias that is left out,
    which is likelier."""
    return edited(llama.grouped_attention, *_words_of("k"), _said("k"))  # type: ignore[arg-type]


def _words_of(which: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    old = tuple(f'{name} = tap("{name}", turned({name}, config=config))' for name in which)
    return old, tuple(_added_after(name) for name in which)


def _said(which: str) -> str:
    what = " and ".join(BIASED[name][2] for name in which)
    biases, verb = ("biases of the maps", "are") if len(which) == 2 else ("bias of the map", "is")
    return f"the {biases} of {what} {verb} added after the rotation, before which is right"


def _added_after(name: str) -> str:
    bias, heads, _ = BIASED[name]
    b = f'p["{bias}"].reshape(config["{heads}"], 1, -1)'
    return f'{name} = tap("{name}", turned({name} - {b}, config=config) + {b})'
