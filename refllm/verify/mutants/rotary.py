"""Mistakes of rotary positions."""

from __future__ import annotations

from refllm.spec.rotary import rotary_halves, rotary_interleaved
from refllm.verify.mutants.bank import Edited, Edits, Function, edit

ANGLES = "angles(positions, x.shape[-1], base)"
PULLBACK = "return turned(dy, -a)"


def _mutants(
    name: str, f: Function, other: Function, first: str, ends: tuple[str, str], join: str, mixed: str, swapped: str,
    pairs: str,
) -> list[Edited]:  # fmt: skip
    """The mistakes that both layouts have in common, in the lines of one: `first` makes the angles, `ends` are both of
    a pair, `join` puts pairs side by side, `mixed` has the angles of the other layout, and `swapped` its partners."""
    result, turning = f"return turned(x, a), rotary_{name}_back", join.format(f"turn({ends[0]}, {ends[1]}, angle)")

    def by(angles: str) -> Edits:
        return edit(f, first.format(ANGLES), first.format(angles))

    def by_frequency(exponent: str) -> Edits:
        return edit(f, first.format(ANGLES), "D = x.shape[-1]\n" + first.format(
            f"positions[..., None] * power(base, {exponent})"))  # fmt: skip

    def to(value: str) -> Edits:
        return edit(f, result, f"return {value}, rotary_{name}_back")

    def as_pairs(u: str, v: str) -> Edits:
        return edit(f, f"return {turning}", f"u, v = {ends[0]}, {ends[1]}\n"
                    "c, s = like(cos(angle), u), like(sin(angle), u)\n"
                    f"return {join.format(f'({u}, {v})')}")  # fmt: skip

    part = f"right(rotary_{name})(x[..., :n], positions=positions, base=base)[0]"
    found: list[tuple[str, str, Edits]] = [
        ("turned-back", "turned the other way", to("turned(x, -a)")),
        ("other-layout", f"with the pairs of the other layout, {pairs}",
         to(f"{other.__name__}(x, positions=positions, base=base)[0]")),
        ("mixed-layout", "with the partners of this layout and the angles of the other",
         edit(f, f"return {turning}", mixed)),
        ("mixed-partners", "with the angles of this layout and the partners of the other",
         edit(f, f"return {turning}", swapped)),
        ("from-one", "counted from 1", by("angles(positions + 1, x.shape[-1], base)")),
        ("restart", "counted from 0 whatever the positions are", by("angles(arange(x.shape[-2]), x.shape[-1], base)")),
        ("one-for-all", "that give every sentence the positions of the first",
         by("angles(positions[:1] if positions.ndim > 1 else positions, x.shape[-1], base)")),
        ("base-fixed", "with the base 10000 whatever is asked for", by("angles(positions, x.shape[-1], 10000)")),
        ("base-tenth", "with a tenth of the base, 1000 for 10000", by("angles(positions, x.shape[-1], base / 10)")),
        ("pair-exponent", "with the exponent i/D of the pair instead of 2i/D",
         by_frequency("-ratio(arange(D // 2), D)")),
        ("doubled-exponent", "with the exponent 4i/D: the width of the pairs taken for D",
         by_frequency("-ratio(arange(0, 2 * D, 4), D)")),
        ("last-frequency", "whose last pair has the frequency 1/base, by D/2 - 1 in the exponent",
         by_frequency("-ratio(arange(D // 2), max(1, D / 2 - 1))")),
        ("inverse-frequency", "multiplied by base^(2i/D) instead of divided",
         by_frequency("ratio(arange(0, D, 2), D)")),
        ("degrees", "with angles taken for degrees", by(f"{ANGLES} * pi() / 180")),
        ("single-precision", "with angles in float32", by('narrow_angles(positions, x.shape[-1], base, "float32")')),
        ("half-precision", "with angles in float16", by('narrow_angles(positions, x.shape[-1], base, "float16")')),
        ("no-minus", "without the minus sign: both of a pair add the other's sine",
         as_pairs("u * c + v * s", "v * c + u * s")),
        ("sin-cos-swapped", "with sine and cosine swapped", as_pairs("u * s - v * c", "v * s + u * c")),
        ("half-of-the-width", "that turn the first half of the width alone",
         edit(f, result, f"n = x.shape[-1] // 4 * 2\n"
                         f"return concatenate([{part}, x[..., n:]], axis=-1), rotary_{name}_back")),
        ("none", "that turn nothing", to("x")),
        ("back-forward", "whose gradient is turned on instead of back", edit(f, PULLBACK, "return turned(dy, a)")),
        ("back-identity", "whose gradient passes unchanged", edit(f, PULLBACK, "return dy")),
    ]  # fmt: skip
    return [Edited(f"LONG/rotary-{name}-{slug}", f"rotary positions ({name}) {about}", e) for slug, about, e in found]


OF_INTERLEAVED = (  # the partners i and i + D/2, the angles a, a, b, b
    "n, wide = z.shape[-1] // 2, angle.repeat(2, axis=-1)\n"
    "u, v = z[..., :n], z[..., n:]\n"
    "both = turn(u, v, wide[..., :n])[0], turn(u, v, wide[..., n:])[1]\n"
    "return concatenate(both, axis=-1)"
)
OF_HALVES = (  # the partners 2i and 2i + 1, the angles a, b, a, b
    "u, v, wide = z[..., 0::2], z[..., 1::2], concatenate([angle, angle], axis=-1)\n"
    "both = turn(u, v, wide[..., 0::2])[0], turn(u, v, wide[..., 1::2])[1]\n"
    "return stack(both, axis=-1).reshape(z.shape)"
)
MUTANTS = [
    *_mutants("halves", rotary_halves, rotary_interleaved, "half, a = x.shape[-1] // 2, {}",
              ("z[..., :half]", "z[..., half:]"), "concatenate({}, axis=-1)", OF_INTERLEAVED, OF_HALVES,
              "2i and 2i + 1"),
    *_mutants("interleaved", rotary_interleaved, rotary_halves, "a = {}",
              ("z[..., 0::2]", "z[..., 1::2]"), "stack({}, axis=-1).reshape(z.shape)", OF_HALVES, OF_INTERLEAVED,
              "i and i + D/2"),
]  # fmt: skip
