"""From float32 to the narrower types of numbers and back, bit by bit."""

from refllm.spec.array import Array, where

# Digits after the point; the exponent of the smallest normal number; the patterns of the largest number, of what an
# infinity becomes, and of NaN; the bit of the sign.
TYPES = {
    "bfloat16": (7, -126, 0x7F7F, 0x7F80, 0x7FC0, 0x8000),
    "float16": (10, -14, 0x7BFF, 0x7C00, 0x7E00, 0x8000),
    "float8_e4m3": (3, -6, 0x7E, 0x7F, 0x7F, 0x80),
    "float8_e5m2": (2, -14, 0x7B, 0x7C, 0x7E, 0x80),
}


def narrowed(bits: Array, *, to: str, saturate: bool) -> Array:
    """FP8: the number of that type which is nearest to a float32, of two the even one; both as bit patterns

    `bits` are those of the float32 as a whole number. What is rounded above the largest number becomes an infinity, in
    E4M3, which has none, NaN; with `saturate` it becomes the largest number, infinities too. NaN stays NaN: any
    pattern of it is right, and the one that is given here has no sign.
    Source:  Micikevicius et al. 2022 (arXiv:2209.05433) sec. 3.
    Shapes:  bits (...) in [0, 2^32) -> y (...)

    >>> narrowed(integers([0x3F880000, 0x43E80000, 0x7F800000]), to="float8_e4m3", saturate=False)  # 1 1/16, 464, ∞
    array([ 56, 126, 127])
    """
    digits, lowest, largest, beyond, nan, minus = TYPES[to]
    magnitude = bits % 2**31
    e = where(magnitude < 2**23, 1, magnitude // 2**23)
    m = magnitude - (e - 1) * 2**23  # the number is m 2^(e - 150), the leading 1 being in m
    kept_e = where(e - 127 < lowest, lowest, e - 127)
    drop = 23 - digits + kept_e - (e - 127)
    drop = where(drop > 25, 25, drop)  # less than half of the smallest number, as all that goes is
    kept, rest, half = m // 2**drop, m % 2**drop, 2 ** (drop - 1)
    up = (rest > half) | ((rest == half) & (kept % 2 == 1))
    y = (kept_e - lowest) * 2**digits + kept + up
    y = where(y > largest, largest if saturate else beyond, y)
    y = where(magnitude > 0x7F800000, nan, y)
    return where(y == nan, nan, y + bits // 2**31 * minus)


def widened(bits: Array, *, of: str) -> Array:
    """FP8: the float32 that a number of that type is; both as bit patterns

    Every number of the type is one of float32. NaN stays NaN, and the one that is given here has no sign.
    Source:  Micikevicius et al. 2022 (arXiv:2209.05433) sec. 3, table 1.
    Shapes:  bits (...) in [0, 2^16) -> y (...)

    >>> widened(integers([0x01, 0x7E]), of="float8_e4m3")  # 2^-9 = 0x3B000000 and 448 = 0x43E00000
    array([ 989855744, 1138753536])
    """
    digits, lowest, largest, beyond, nan, minus = TYPES[of]
    magnitude = bits % minus
    e = where(magnitude < 2**digits, 1, magnitude // 2**digits)
    m = magnitude - (e - 1) * 2**digits
    place = 0 * m  # of the first digit of m that is not 0
    for k in range(1, digits + 1):
        place = where(m < 2**k, place, k)
    e = lowest + e - 1 - digits + place
    kept_e = where(e < -126, -126, e)
    y = (kept_e + 126) * 2**23 + m * 2 ** (23 - place + e - kept_e)
    y = where(m == 0, 0, y)
    y = where(magnitude == beyond, 0x7F800000, y)
    y = y + bits // minus * 2**31
    return where((magnitude > largest) & (magnitude != beyond) | (magnitude == nan), 0x7FC00000, y)
