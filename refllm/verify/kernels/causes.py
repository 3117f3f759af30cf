"""What may be the cause of a wrong answer to a sized case, the usual ones first: the mistakes of the bank, the right
operation of wrong numbers, those of the plain text, and the mistakes of the bank with other numbers in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Protocol

from refllm.verify import mutants, plain, runner
from refllm.verify.case import Case, FaultError, Response, UnsupportedError
from refllm.verify.kernels import addressed, bank, loops, machine, tiled
from refllm.verify.kernels.bank import Mistake
from refllm.verify.kernels.branches import branches, branches_of_gradients
from refllm.verify.kernels.calls import calls_of_gradients, calls_of_values
from refllm.verify.kernels.carried import carried
from refllm.verify.kernels.formulas import formulas
from refllm.verify.kernels.grouped import grouped
from refllm.verify.kernels.inner import inner
from refllm.verify.kernels.means import means
from refllm.verify.kernels.mistakes import MISTAKES
from refllm.verify.kernels.narrow_sums import narrow_sums, overflows
from refllm.verify.kernels.overwritten import overwritten
from refllm.verify.kernels.packed_masks import saved_signs
from refllm.verify.kernels.partial_products import parts_of_products, tails_of_products
from refllm.verify.kernels.partial_sums import partial_sums, partial_sums_of_gradients
from refllm.verify.kernels.reading import readings, shares
from refllm.verify.kernels.rounded import roundings
from refllm.verify.kernels.rounded_up import pairs
from refllm.verify.kernels.rounds import rounds
from refllm.verify.kernels.segments import segments
from refllm.verify.kernels.siblings import siblings
from refllm.verify.kernels.slots import slots
from refllm.verify.kernels.table_rows import table_rows
from refllm.verify.kernels.tiled import blocks
from refllm.verify.mutants import Edited
from refllm.verify.mutants.bank import Rewritten

SIZES = (
    {"TILE": 64}, {"TILE": 128}, {"BLOCK": 1024}, {"TILE": 16}, {"BLOCK": 128}, {"BLOCK": 64}, {"BLOCK": 32},
    {"BLOCK": 512}, {"TILE": 256}, {"BLOCK": 2048}, {"BLOCK": 4096}, {"TILE": 48}, {"TILE": 80},
    {"TILE": 96}, {"TILE": 512}, {"TILE": 1024}, {"TILE": 8},
)  # fmt: skip
PAIRS = tuple(
    {"TILE": keys, "ROWS": rows}
    for keys, rows in ((128, 64), (64, 128), (32, 128), (32, 64), (64, 32), (128, 32), (64, 16), (128, 16), (32, 16))
)
MAKE_NAN = ("nothing-minus-nothing", "nothing-by-nothing", "empty-tile-nan")
OF_ONE = ("sliding_window_attention", *loops.KINDS)  # whose mistakes are none of other attention
USUAL = ({"TILE": 64}, {"TILE": 128}, {"BLOCK": 1024})  # tried first
DEFAULT = {"TILE": machine.TILE, "BLOCK": machine.BLOCK}
SMALL, LARGE = (4, 8, 16, 32, 64, 128, 2, 256), (1024, 512, 2048, 4096, 256, 8192, 128, 16384, 32768)
LARGEST = (65536, 524288, 262144, 131072, 1 << 20)
BITS = (8, 16)
TYPES = ("bfloat16", "float16", "tf32")
IN_WORDS = {"four": 4, "two": 2, "eight": 8}


class Cause(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def issue(self) -> str | None: ...
    @property
    def diff(self) -> list[tuple[str, list[str]]]: ...
    @property
    def gradients_alone(self) -> bool: ...

    def answer(self, case: Case, dtype: str) -> Response | None:
        """What it makes of a case, without gradients if the case has none; None if it raises, or says nothing of it."""
        ...


@dataclass(frozen=True, eq=False)
class OfBank:
    """A mistake of a bank, with tiles or blocks of a size that is not the text's where `sizes` says so."""

    mistake: Mistake | Edited
    sizes: tuple[tuple[str, int], ...] = ()
    of_digits: bool = False  # one of many numbers or types, which explains nothing but lost digits
    of_nan: bool = False  # one of many sizes, which explains nothing but what is no number

    @property
    def id(self) -> str:
        return self.mistake.id

    @property
    def issue(self) -> str | None:
        return self.mistake.issue

    @property
    def about(self) -> str:
        return self.in_sizes([self] if self.sizes else [])

    @property
    def sized(self) -> tuple[str, int] | None:
        """The size of its tiles or blocks, if its lines depend on one: that of the text, unless it has its own."""
        if self.sizes or not isinstance(self.mistake, Mistake):
            return next(iter(self.sizes), None)
        depends = (
            name for name in DEFAULT if any(name in new for r in self.mistake.rewritten for new in r.lines[1::2])
        )
        name = next(depends, None) or next((name for name in DEFAULT if _has(self.mistake, name)), None)
        return (name, DEFAULT[name]) if name else None

    def in_sizes(self, alike: Sequence[OfBank]) -> str:
        """Its words, with the sizes of those that are alike: one, or from the smallest to the largest."""
        found = sorted(
            (n * _times(each.mistake, name), name) for each in alike if each.sized for name, n in [each.sized]
        )
        if not found or len({name for _, name in found}) > 1:
            return self.mistake.about
        (least, name), (most, _) = found[0], found[-1]
        sizes = f"{least:,}" if least == most else f"{least:,} to {most:,} (all of these fit)"
        return f"{self.mistake.about}, with {name.lower()}s of {sizes}"

    @property
    def diff(self) -> list[tuple[str, list[str]]]:
        return self.mistake.diff

    @property
    def narrows(self) -> bool:
        """Whether it rounds to a narrow type."""
        return any("narrow(" in new for each in self.mistake.rewritten for new in each.lines[1::2])

    def variants(self) -> Iterator[Cause]:
        """The mistake with other numbers, and in tiles and blocks of other sizes."""
        if isinstance(self.mistake, Mistake) and not self.sizes:
            yield from (OfBank(self.mistake, tuple(s.items())) for s in SIZES if _has(self.mistake, *s))
            yield from map(OfBank, (*with_other_numbers(self.mistake), *with_other_types(self.mistake)))

    @property
    def gradients_alone(self) -> bool:
        """Whether every edit is one of a pullback."""
        if isinstance(self.mistake, Mistake):
            return self.mistake.gradients_alone
        return all(each.edit.in_pullback for each in self.mistake.rewritten)

    def answer(self, case: Case, dtype: str) -> Response | None:
        if isinstance(self.mistake, Edited):
            how = {"traced": self.mistake.traced, "values": not case.cotangents}
            return plain.answer(case, dtype, self.mistake.functions, **how)
        if loops.has(case.operation) and self.mistake.is_of(loops.FUNCTIONS):
            return loops.answer(self.mistake, self.sizes, case, dtype)
        among = [case.operation] if case.operation in bank.OPERATIONS else []
        try:
            return runner.respond(bank.implementation(self.mistake, among=among, **dict(self.sizes)), case, dtype)
        except (FaultError, UnsupportedError):
            return None


@cache
def causes(operation: str) -> tuple[Cause, ...]:
    """Those of an operation in the order in which they are tried. The same objects for every case."""
    return tuple(_all(operation))


def _all(operation: str) -> Iterator[Cause]:
    of_loops = [m for m in MISTAKES if _is_of(m, operation)]
    own = [m for m in of_loops if m.operation == operation]
    own += [m for m in of_loops if m.operation == "attention" and operation != "attention"]
    of_loops = own + [m for m in of_loops if m not in own]
    families = [m for m in tiled.edits() if _is_of(m, operation)]
    in_tiles = [m for m in families if tiled.depends(m)]
    yield from map(OfBank, of_loops)
    yield from _of_nan(of_loops, [m for m in families if _is_of(m, operation)])
    yield from segments(operation)
    yield from slots(operation)
    yield from grouped(operation)
    yield from pairs(operation)
    yield from shares(operation)
    yield from map(OfBank, rounds(operation))
    yield from overwritten(operation)
    yield from carried(operation)
    yield from addressed.scatters(operation)
    of_products = [] if loops.has(operation) else list(tails_of_products(operation))
    yield from of_products
    of_text = list(_of_the_text(operation))
    yield from of_text if operation in loops.KINDS else ()
    yield from map(OfBank, families)
    yield from map(OfBank, blocks.edits(operation))
    yield from branches_of_gradients(operation)
    yield from calls_of_gradients(operation)
    yield from partial_sums_of_gradients(operation)
    yield from means(operation)
    yield from addressed.narrow(operation)
    yield from formulas(operation)
    yield from siblings(operation)
    yield from inner(operation)
    yield from saved_signs(operation)
    yield from table_rows(operation)
    yield from (OfBank(m, of_digits=OfBank(m).narrows) for mistake in own for m in with_other_numbers(mistake))
    yield from (OfBank(m, of_digits=True) for mistake in of_loops for m in with_other_types(mistake))
    yield from overflows(operation)
    yield from roundings(operation)
    yield from narrow_sums(operation)
    yield from (OfBank(m, (("TILE", 1),)) for m in own if "in-place" in m.id)  # a unit a thread
    yield from _in_sizes([*own, *in_tiles], USUAL)
    yield from (OfBank(m, tuple(s.items())) for s in PAIRS for m in in_tiles if tiled.depends(m, on_both=True))
    yield from readings(operation)
    yield from branches(operation)
    yield from calls_of_values(operation)
    yield from partial_sums(operation)
    yield from () if of_products else tails_of_products(operation)
    yield from parts_of_products(operation)
    yield from of_text if operation not in loops.KINDS else ()
    of_others, other_sizes = of_loops[len(own) :], [sizes for sizes in SIZES if sizes not in USUAL]
    single = [m for m in tiled.single() if _is_of(m, operation)]
    yield from map(OfBank, single)
    yield from _in_sizes([m for m in single if tiled.depends(m)], USUAL)
    yield from _in_sizes(blocks.edits(operation), USUAL)
    yield from _in_sizes(of_others, USUAL)
    yield from _in_sizes(of_loops, other_sizes[:1])
    yield from (OfBank(m) for mistake in of_loops if mistake not in own for m in with_other_numbers(mistake))
    yield from _in_sizes([*of_loops, *in_tiles, *blocks.edits(operation)], other_sizes[1:])


def _of_nan(of_loops: Sequence[Mistake], families: Sequence[Mistake]) -> Iterator[OfBank]:
    """What makes NaN of a tile without a key, in tiles of every size: the commonest mistake of attention with masks."""
    for mistake in (*of_loops, *families):
        if mistake.id.partition("/")[2] in MAKE_NAN and mistake.operation == "attention":
            for sizes in ({}, *(s for s in (*SIZES, *PAIRS) if "TILE" in s)):
                yield OfBank(mistake, tuple(sizes.items()), of_nan=True)


def _of_the_text(operation: str) -> Iterator[OfBank]:
    """The mistakes of the plain text."""
    called = set(plain.called(operation)) if operation in plain.operations() else set()
    for mutant in mutants.MUTANTS:
        if isinstance(mutant, Edited) and mutant.dtype == "float64" and set(mutant.originals) <= called:
            yield OfBank(mutant)


def _is_of(mistake: Mistake, operation: str) -> bool:
    """Whether the text with loops has an operation and calls what is edited, or the plain text has one that does."""
    if operation in bank.OPERATIONS:
        return mistake.reaches(operation) and (mistake.operation not in OF_ONE or mistake.operation == operation)
    return mistake.operation not in OF_ONE and loops.reaches(mistake, operation)


def _in_sizes(mistakes: Sequence[Mistake], sizes: Sequence[dict[str, int]]) -> Iterator[OfBank]:
    return (OfBank(m, tuple(each.items())) for each in sizes for m in mistakes if _has(m, *each))


def in_other_sizes(operation: str, cause: Cause) -> list[OfBank]:
    """A mistake of the bank in tiles or blocks of every other size."""
    if not isinstance(cause, OfBank) or not isinstance(cause.mistake, Mistake):
        return []
    found = [c for c in causes(operation) if isinstance(c, OfBank) and c.mistake is cause.mistake]
    return [c for c in found if c is not cause]


def _times(mistake: Mistake | Edited, name: str) -> int:
    """How many of the unit of its size a tile of a mistake is: products take 2 * TILE rows and columns at once."""
    new = [line for each in mistake.rewritten for line in each.lines[1::2]] if isinstance(mistake, Mistake) else []
    return 2 if any(f"2 * {name}" in line for line in new) else 1


def _has(mistake: Mistake, name: str) -> bool:
    """Whether the mistaken lines, or those around them, depend on a size."""
    return any(name in each.edit.source for each in mistake.rewritten) or (name == "TILE" and tiled.is_by_tile(mistake))


def with_other_numbers(mistake: Mistake) -> Iterator[Mistake]:
    """A mistake with other numbers in the place of one that its words and its lines name: 512 columns, not 1,024."""
    for n, written in _numbers(mistake.about):
        family = tuple(dict.fromkeys(other for f in (SMALL, LARGE, LARGEST) if n in f for other in f))
        if "-bit" in mistake.about or not _is_in(mistake, n):
            family = BITS if "-bit" in mistake.about and n in BITS and _is_in(mistake, n) else ()
        for other in family:
            if other != n:
                about = re.sub(rf"(?<![\w,]){written}(?![\w,]*\d)", f"{other:,}", mistake.about)
                yield replace(mistake, about=about, rewritten=tuple(_exchanged(r, n, other) for r in mistake.rewritten))


def with_other_types(mistake: Mistake) -> Iterator[Mistake]:
    """A mistake that rounds to another narrow type than the one that its words and its lines name, and with other
    numbers too, where the bank has no such one."""
    own = next((t for t in TYPES if t in mistake.about and t in mistake.id), "")
    if not own or not any(f'"{own}"' in new for r in mistake.rewritten for new in r.lines[1::2]):
        return
    for other in TYPES:
        id = mistake.id.replace(own, other)
        if other == own or any(m.id == id for m in MISTAKES):
            continue
        made = replace(
            mistake, id=id, about=mistake.about.replace(own, other), issue=None,
            rewritten=tuple(_in_type(r, own, other) for r in mistake.rewritten),
        )  # fmt: skip
        yield made
        yield from with_other_numbers(made)


def _in_type(rewritten: Rewritten, own: str, other: str) -> Rewritten:
    lines = list(rewritten.lines)
    lines[1::2] = [new.replace(f'"{own}"', f'"{other}"') for new in lines[1::2]]
    return Rewritten(rewritten.original, tuple(lines))


def _numbers(about: str) -> Iterator[tuple[int, str]]:
    for written in re.findall(r"\b\d[\d,]*\b", about):
        yield int(written.replace(",", "")), written
    yield from ((n, word) for word, n in IN_WORDS.items() if re.search(rf"\b{word}\b", about))


def _is_in(mistake: Mistake, n: int) -> bool:
    return any(re.search(rf"\b{n}\b", new) for r in mistake.rewritten for new in r.lines[1::2])


def _exchanged(rewritten: Rewritten, n: int, other: int) -> Rewritten:
    lines = list(rewritten.lines)
    for k in range(1, len(lines), 2):
        lines[k] = re.sub(rf"\b{n}\b", str(other), lines[k])
    return Rewritten(rewritten.original, tuple(lines))
