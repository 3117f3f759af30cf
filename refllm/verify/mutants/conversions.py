"""Mistakes of conversions from float32 to narrower types and back."""

from __future__ import annotations

from refllm.spec.conversions import narrowed, widened
from refllm.verify.mutants.bank import Edited, Edits, edit

UP = "up = (rest > half) | ((rest == half) & (kept % 2 == 1))"
OVER = "y = where(y > largest, largest if saturate else beyond, y)"
NAN = "y = where(magnitude > 0x7F800000, nan, y)"
SIGN = "return where(y == nan, nan, y + bits // 2**31 * minus)"
KEPT_E = "kept_e = where(e - 127 < lowest, lowest, e - 127)"
INFINITE = "y = where(magnitude == beyond, 0x7F800000, y)"
NOT_SHIFTED = "y = where(magnitude < 2**digits, (lowest + 126) * 2**23 + m * 2 ** (23 - digits), y)\n"
WIDE_E = "e = where(magnitude < 2**digits, 1, magnitude // 2**digits)"


def up(new: str) -> Edits:
    """Other numbers that are rounded away from zero."""
    return edit(narrowed, UP, f"up = {new}")


def over(new: str) -> Edits:
    return edit(narrowed, OVER, f"y = {new}")


# fmt: off
MUTANTS = [
    Edited("FP8/truncated", "a conversion that cuts digits off instead of rounding", up("0 * kept"),
           "https://github.com/NVlabs/cutile-rs/issues/250"),
    Edited("FP8/ties-up", "a conversion that rounds every tie away from zero", up("rest >= half"),
           "https://github.com/onnx/onnx/pull/5456"),
    Edited("FP8/ties-down", "a conversion that rounds every tie towards zero", up("rest > half")),
    Edited("FP8/ties-to-odd", "a conversion that rounds ties to the odd number",
           up("(rest > half) | ((rest == half) & (kept % 2 == 0))")),
    Edited("FP8/any-rest-up", "a conversion that rounds up whatever is cut off", up("rest > 0")),
    Edited("FP8/subnormal-flushed", "a conversion that makes 0 of what is below the smallest normal number",
           edit(narrowed, OVER, f"y = where(e - 127 < lowest, 0, y)\n{OVER}")),
    Edited("FP8/subnormal-double-rounded", "a conversion that rounds to the digits of a normal number first, and then "
           "to those of a subnormal one",
           edit(narrowed, "kept, rest, half = m // 2**drop, m % 2**drop, 2 ** (drop - 1)",
                "few = 2 ** (23 - digits)\n"
                "m = (m // few + ((m % few > few // 2) | ((m % few == few // 2) & (m // few % 2 == 1)))) * few\n"
                "kept, rest, half = m // 2**drop, m % 2**drop, 2 ** (drop - 1)"),
           "https://github.com/openvinotoolkit/openvino/pull/30057"),
    Edited("FP8/clamped-before-rounding", "overflow that is decided before rounding: what rounds down to the largest "
           "number overflows", over("where(y - up >= largest, where((y - up == largest) & (rest == 0), y, "
                                    "largest if saturate else beyond), y)"),
           "https://github.com/stillwater-sc/universal/pull/1351"),
    Edited("FP8/overflow-unseen", "overflow that runs on into the patterns of infinity and NaN, and beyond them",
           over("y % (2 * minus)")),
    Edited("FP8/always-saturated", "a conversion that saturates although it should not",
           over("where(y > largest, largest, y)"),
           "https://github.com/ROCm/rocm-systems/pull/8800"),
    Edited("FP8/e4m3-always-saturated", "a conversion that saturates in E4M3 although it should not",
           over('where(y > largest, largest if saturate or to == "float8_e4m3" else beyond, y)'),
           "https://github.com/stillwater-sc/universal/issues/1302"),
    Edited("FP8/saturates-at-last-exponent", "a conversion to E4M3 that saturates from 256 on, its last exponent",
           over('where((y >= 0x78) | (y > largest), largest, y) if saturate and to == "float8_e4m3" else '
                "where(y > largest, largest if saturate else beyond, y)"),
           "https://github.com/sgl-project/sglang/issues/40581"),
    Edited("FP8/never-saturated", "a conversion that does not saturate although it should",
           over("where(y > largest, beyond, y)"), "https://github.com/jax-ml/ml_dtypes/issues/260"),
    Edited("FP8/infinity-not-saturated", "infinities that stay where all else saturates",
           edit(narrowed, NAN, f"y = where(magnitude == 0x7F800000, beyond, y)\n{NAN}")),
    Edited("FP8/last-exponent-reserved", "the largest exponent of E4M3 taken for infinity and NaN, as in IEEE 754",
           over('where(y >= (0x78 if to == "float8_e4m3" else beyond), (0x77 if to == "float8_e4m3" else largest) '
                "if saturate else beyond, y)"),
           "https://github.com/tile-ai/tilelang-metax/pull/140"),
    Edited("FP8/nan-cut-off", "NaN whose digits are in its last places alone becomes an infinity",
           edit(narrowed, NAN, "y = where(magnitude >= 0x7FC00000, nan, y)"),
           "https://github.com/dotnet/runtime/pull/130583"),
    Edited("FP8/nan-saturated", "NaN that is taken for an overflow",
           edit(narrowed, NAN, "y = where((magnitude > 0x7F800000) & (not saturate), nan, y)")),
    Edited("FP8/sign-of-zero-lost", "a zero that loses its sign",
           edit(narrowed, SIGN, "return where((y == nan) | (y == 0), y, y + bits // 2**31 * minus)")),
    Edited("FP8/no-sign", "a conversion without the sign", edit(narrowed, SIGN, "return y")),
    Edited("FP8/lowest-exponent", "subnormal numbers that begin one exponent too late",
           edit(narrowed, KEPT_E, "kept_e = where(e - 127 <= lowest, lowest + 1, e - 127)"),
           "https://github.com/JuliaMath/Float8s.jl/issues/22"),
    Edited("FP8/widened-subnormal", "subnormal numbers read with the leading 1 of normal ones",
           edit(widened, WIDE_E, "e = magnitude // 2**digits")),
    Edited("FP8/widened-flushed", "subnormal numbers read as 0",
           edit(widened, "y = where(m == 0, 0, y)", "y = where(magnitude < 2**digits, 0, y)")),
    Edited("FP8/widened-subnormal-not-shifted", "subnormal numbers whose digits stand behind a leading 1, unshifted",
           edit(widened, "y = where(m == 0, 0, y)", NOT_SHIFTED + "y = where(m == 0, 0, y)")),
    Edited("FP8/widened-e4m3-not-shifted", "subnormal numbers of E4M3 whose digits stand behind a leading 1, unshifted",
           edit(widened, "y = where(m == 0, 0, y)", 'if of == "float8_e4m3":\n    ' + NOT_SHIFTED +
                "y = where(m == 0, 0, y)"), "https://github.com/1bit-MONSTER/1bit-MONSTER/pull/300"),
    Edited("FP8/widened-infinity", "an infinity read as a number", edit(widened, INFINITE, "y = y")),
    Edited("FP8/widened-nan", "NaN read as a number",
           edit(widened, "return where((magnitude > largest) & (magnitude != beyond) | (magnitude == nan), "
                "0x7FC00000, y)", "return y")),
    Edited("FP8/widened-no-sign", "numbers read without their sign",
           edit(widened, "y = y + bits // minus * 2**31", "y = y")),
]
