"""Habits that come in families: one for queries and one for keys, one for each rate of dropout, one for each size of
what a mask subtracts."""

from __future__ import annotations

from collections.abc import Iterator

from refllm.spec import relative
from refllm.verify.ports.mistakes.habit import Habit
from refllm.verify.ports.published import llama, parts

ROTATED = """    if config["query_key_norm"]:
        q = tap("q_normed", norm(q, p["query_norm"], eps=config["eps"]))
        k = tap("k_normed", norm(k, p["key_norm"], eps=config["eps"]))
    q = tap("q", turned(q, config=config))
    k = tap("k", turned(k, config=config))
"""


def norms_after_the_rotation() -> Iterator[Habit]:
    """Of queries and keys, or of one of them."""
    for which, said in (("qk", "the norms of queries and keys come"), ("q", "the norm of the queries comes"),
                        ("k", "the norm of the keys comes")):  # fmt: skip
        lines = []
        for name, gain in (("q", "query_norm"), ("k", "key_norm")):
            normed = f'norm({{}}, p["{gain}"], eps=config["eps"]) if config["query_key_norm"] else {{}}'
            turned = "turned({}, config=config)"
            inner, outer = (turned, normed) if name in which else (normed, turned)
            lines += [f"{name} = {inner}", f'{name} = tap("{name}", {outer})']
            lines = [line.replace("{}", name) for line in lines]
        new = "".join(f"    {line}\n" for line in lines)
        yield llama.grouped_attention, ROTATED, new, f"{said} after the rotation, before which is right"


def places_one_too_high() -> Iterator[Habit]:
    """The positions of queries or of keys alone, which changes all distances."""
    for name, what in (("k", "keys"), ("q", "queries")):
        now = f'{name} = tap("{name}", turned({name}, config=config))'
        later = f"turned(concatenate([{name}[..., :1, :], {name}], axis=-2), config=config)[..., 1:, :]"
        said = f"the {what} are turned by positions that are one too high, and the others are not"
        yield llama.grouped_attention, now, f'{name} = tap("{name}", {later})', said


def dropout_scales() -> Iterator[Habit]:
    """What dropout multiplies what it keeps by, left on where nothing is dropped."""
    for rate in (0.1, 0.2, 0.5):
        kept = f"{1 - rate:g}"
        said = f"the weights of attention are divided by {kept}, as a dropout of {rate:g} does in training"
        yield parts.attended, 'tap("weights", w) @ v', f'tap("weights", w / {kept}) @ v', said
        said = f"the weights of attention are multiplied by {kept}"
        yield parts.attended, 'tap("weights", w) @ v', f'tap("weights", w * {kept}) @ v', said
        for function in (parts.feed_forward, parts.gated_feed_forward):
            now = 'tap("activated", a)' if function is parts.feed_forward else 'tap("activated", a * h)'
            for sign, verb in (("*", "multiplied"), ("/", "divided")):
                said = f"the hidden values of the feed-forward layer are {verb} by {kept}: a dropout of {rate:g}"
                yield function, now, f"{now} {sign} {kept}", said


def masks_that_are_too_small() -> Iterator[Habit]:
    """What is subtracted from scores that are not seen, in the place of infinity."""
    for size in (1, 10, 100, 1000):
        said = f"{size:,} is subtracted from the scores that are not seen, which leaves them a weight"
        if size == 1:
            said = f"the mask is added to the scores as 1 and 0, or {said}"
        yield parts.attended, 'tap("scores", s), float("-inf"))', f'tap("scores", s), s - {size})', said


def buckets_of_other_borders() -> Iterator[Habit]:
    """T5's buckets of far distances: their logarithm is rounded down."""
    now, lead = "return near + max(steps, default=0)", "the bucket of a far distance is rounded"
    for way, word in (("to the nearest", "round"), ("up", "lambda steps: math.ceil(steps - 1e-8)")):
        yield relative.bucket, now, f"return bucket_by({word}, n, K, farthest)", f"{lead} {way}, down is right"
    for part, what in ((4, "a quarter"), (1, "all")):
        near = f"max(1, K // {part})" if part > 1 else "K - 1"
        said = f"{what} of the buckets hold{'s' if part > 1 else ''} near distances, one each; half of them is right"
        yield relative.bucket, "near = K // 2", f"near = {near}", said
