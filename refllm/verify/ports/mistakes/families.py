"""Habits that come in families: one for queries and one for keys, one for each rate of dropout, one for each size of
what a mask subtracts."""

from __future__ import annotations

from collections.abc import Iterator

from refllm.spec import relative
from refllm.verify.ports.mistakes.habit import Habit
from refllm.verify.ports.published import gpt, llama, parts

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
    for size in (1, 10, 100):
        said = f"{size} is subtracted from the scores that are not seen, which leaves them a weight"
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


def norms_over_all_heads() -> Iterator[Habit]:
    """The norms of queries and keys by the mean square of a whole place, where that of each head is right."""
    for name, gain, called in (("q", "query_norm", "queries"), ("k", "key_norm", "keys")):
        now = f'tap("{name}_normed", norm({name}, p["{gain}"], eps=config["eps"]))'
        yield llama.grouped_attention, now, _over_all_heads(name, gain), _said_of_all_heads(f"norm of the {called} is")
    both = tuple(f'tap("{n}_normed", norm({n}, p["{gain}"], eps=config["eps"]))' for n, gain in NORMS)
    new = tuple(_over_all_heads(n, gain) for n, gain in NORMS)
    yield llama.grouped_attention, both, new, _said_of_all_heads("norms of queries and keys are")


NORMS = (("q", "query_norm"), ("k", "key_norm"))


def _said_of_all_heads(which: str) -> str:
    return f"the {which} taken over all heads of a place together, where each head by itself is right"


def _over_all_heads(name: str, gain: str) -> str:
    square = f"sum(sum({name} * {name}, axis=-1), axis=1) / ({name}.shape[1] * {name}.shape[-1])"
    return f'tap("{name}_normed", {name} / sqrt({square} + config["eps"]) * p["{gain}"]["g"])'


def parts_of_a_head_turned() -> Iterator[Habit]:
    """The rotation of the first entries of a head alone, as other models have it."""
    for share, word in ((2, "half"), (4, "a quarter")):
        part = f"x.shape[-1] // {share}"
        own = f'frequencies({{**config, "head_width": {part}}}, length=x.shape[-2])'
        for what, angle in (
            ("", f"positions[:, None] * {own}"), (", by the frequencies of a whole one", f"angle[..., : {part} // 2]"),
        ):  # fmt: skip
            new = f"return concatenate([turned_halves(x[..., : {part}], {angle}), x[..., {part} :]], axis=-1)"
            said = f"{word} of each head is turned{what}, and the rest is not"
            yield llama.turned, "return turned_halves(x, angle)", new, said


def outputs_times_the_root_of_the_width() -> Iterator[Habit]:
    """The states or the logits scaled as an embedding is, where the output layer is the embedding."""
    for function in (llama.llama_logits, gpt.gpt_logits):
        for sign, verb in (("*", "multiplied"), ("/", "divided")):
            said = f"the states before the output layer are {verb} by the root of the width"
            yield function, "matmul(x, ", f'matmul(x {sign} sqrt(config["width"]), ', said


def norms_that_are_not_read() -> Iterator[Habit]:
    """Gains of 1 and shifts of 0 in all norms."""
    new = 'normalised(x, {**p, "g": 1 + 0 * p["g"], "b": 0 * p["b"]}, eps=eps)'
    said = "the gains and the shifts of the norms are left out"
    yield parts.norm, "normalised(x, p, eps=eps)", new, said
