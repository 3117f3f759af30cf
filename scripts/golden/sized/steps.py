"""Sized cases of what steps down the gradient: Adam, AdamW, clipping."""

from __future__ import annotations

from collections.abc import Iterator

from golden.sized.recipe import Asked, by, normal, of

UPDATES = [
    ((1,), "normal", 1), ((3,), "normal", 7), ((33,), "wide", 2), ((65, 31), "normal", 100), ((1023,), "normal", 1000),
    ((1025,), "subnormal", 3), ((4097,), "outlier", 10), ((129, 129), "normal", 1), ((1000001,), "normal", 5),
    ((0,), "normal", 2),
]  # fmt: skip


def _updates(operation: str, which: list[int]) -> Iterator[Asked]:
    for n in which:
        shape, profile, step = UPDATES[n]
        first = step == 1
        yield Asked(
            operation,
            f"{by(shape)}-{profile}-step-{step}",
            f"{by(shape)} numbers, step {step}",
            {
                "p": normal(*shape),
                "g": of(profile, *shape, exponent=-3 if profile != "subnormal" else 0),
                "m": of("constant", *shape, value=0) if first else normal(*shape, exponent=-5),
                "v": of("constant", *shape, value=0) if first else of("positive", *shape, exponent=-8),
            },
            {"step": step, "lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 0.1},
            gradient=False,
        )


def _of_other_rates(operation: str) -> Asked:
    """Every number that is a keyword is another one than in the cases above."""
    return Asked(
        operation,
        "129-normal-step-4-other-rates",
        "129 numbers, step 4, other rates, an eps that is no small number",
        {
            "p": normal(129),
            "g": normal(129, exponent=-3),
            "m": normal(129, exponent=-5),
            "v": of("positive", 129, exponent=-8),
        },
        {"step": 4, "lr": 0.125, "beta1": 0.75, "beta2": 0.9375, "eps": 0.0625, "decay": 0.0},
        gradient=False,
    )


def adamw() -> Iterator[Asked]:
    yield from _updates("adamw", list(range(len(UPDATES))))
    yield _of_other_rates("adamw")


def adam() -> Iterator[Asked]:
    yield from _updates("adam", [1, 3, 4, 6])
    yield _of_other_rates("adam")


def clip_by_global_norm() -> Iterator[Asked]:
    sizes: list[tuple[list[tuple[int, ...]], str, float]] = [
        ([(1025,), (33, 65)], "normal", 1.0),
        ([(65537,)], "positive", 0.5),
        ([(3,), (1023,), (31, 33)], "outlier", 1.0),
        ([(129,)], "normal", 1e4),
        ([(0,), (65,)], "wide", 2.0),
    ]
    for shapes, profile, clip in sizes:
        yield Asked(
            "clip_by_global_norm",
            f"{'-'.join(map(by, shapes))}-{profile}",
            f"{len(shapes)} arrays, the norm cut to {clip:g}",
            {f"g.{n}": of(profile, *shape) for n, shape in enumerate(shapes)},
            {"clip": clip},
            gradient=False,
        )
    yield Asked(
        "clip_by_global_norm",
        "65537-outlier-last",
        "65,537 numbers, of which the last one is nearly the whole norm",
        {"g.0": of("outlier", 65537)},
        {"clip": 1.0},
        gradient=False,
        seed=68533,  # the first that puts the outlier of the row into its last column
    )
    yield Asked(
        "clip_by_global_norm",
        "65-zeros",
        "a norm of 0",
        {"g.0": of("constant", 65, value=0)},
        {"clip": 1.0},
        gradient=False,
    )
