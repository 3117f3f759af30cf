"""L1 to L5: the operations of a switch layer, to which the choice of experts is given; the layer, which makes it; and
the model."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden.case import Case, Draw, bfloat16
from golden.cases.blocks import parameters
from golden.cases.runs import RATES, writing
from golden.shapes import experts as expert_shapes
from golden.shapes import switch as shapes


def _shares(id: str, *shape: int) -> np.ndarray:
    """Rows of probabilities, which sum to 1 but for the rounding to bfloat16."""
    e = np.exp(Draw(id).normal(*shape))
    return bfloat16(e / e.sum(axis=-1, keepdims=True))


def gate() -> list[Case]:
    def case(slug: str, about: str, shape: tuple[int, ...], chosen: Any) -> Case:
        id = f"MOE/gate-{slug}"
        return Case(id, "gate", about, {"p": _shares(id, *shape)}, {"chosen": np.array(chosen)})

    return [
        case("rows", "the probability of the expert that was chosen", (4, 3), [2, 0, 0, 1]),
        case("batch", "(B, T, E)", (2, 3, 2), [[0, 1, 1], [0, 0, 1]]),
        case("one-expert", "E = 1", (2, 1), [0, 0]),
    ]


def load_balance() -> list[Case]:
    def case(slug: str, about: str, shape: tuple[int, ...], chosen: Any, valid: Any = None, p: Any = None) -> Case:
        id = f"MOE/balance-{slug}"
        inputs = {"p": _shares(id, *shape) if p is None else np.array(p)}
        valid = None if valid is None else np.array(valid)
        return Case(id, "load_balance", about, inputs, {"chosen": np.array(chosen), "valid": valid})

    return [
        case("one-text", "E sum of the share of tokens times the mean probability; the shares have no gradient",
             (5, 3), [0, 2, 0, 0, 1]),
        case("batch", "a value for every text of (B, T, E)", (2, 4, 2), [[0, 0, 1, 0], [1, 1, 1, 1]]),
        case("even", "equal probabilities and an even choice: 1", (4, 4), [3, 1, 0, 2], p=np.full((4, 4), 0.25)),
        case("all-to-one", "all to one expert, for certain: E", (3, 4), [1, 1, 1], p=[[0.0, 1.0, 0.0, 0.0]] * 3),
        case("valid", "padding counts neither as a choice nor in the means nor in T", (2, 4, 3),
             [[0, 1, 0, 2], [2, 2, 1, 0]], [[True, True, True, False], [False, True, True, False]]),
        case("nothing", "a text without a token that counts has 0", (2, 2, 2), [[0, 1], [1, 1]],
             [[False, False], [True, True]]),
    ]  # fmt: skip


def dispatch() -> list[Case]:
    def case(slug: str, about: str, x: tuple[int, ...], slots: Any, experts: int, capacity: int) -> Case:
        id = f"MOE/dispatch-{slug}"
        keywords = {"slots": np.array(slots), "experts": experts, "capacity": capacity}
        return Case(id, "dispatch", about, {"x": Draw(id).normal(*x)}, keywords)

    return [
        case("full", "every slot has its token", (4, 2), [2, 0, 3, 1], 2, 2),
        case("dropped", "a token without a slot goes nowhere and has no gradient; a slot without a token holds zeros",
             (4, 3), [0, 6, 3, 1], 3, 2),
        case("batch", "slots are numbered anew in every text", (2, 3, 2), [[0, 1, 4], [2, 0, 3]], 2, 2),
        case("empty-expert", "no token for the first expert", (3, 2), [2, 3, 4], 2, 2),
    ]  # fmt: skip


def combine() -> list[Case]:
    def case(slug: str, about: str, z: tuple[int, ...], slots: Any) -> Case:
        id = f"MOE/combine-{slug}"
        slots = np.array(slots)
        inputs = {"z": Draw(id).normal(*z), "g": _shares(f"{id} g", *slots.shape, 2)[..., 0]}
        return Case(id, "combine", about, inputs, {"slots": slots})

    return [
        case("full", "each token has what its expert made of it, times its probability", (2, 2, 3), [2, 0, 3, 1]),
        case("dropped", "a token without a slot gets zeros; its probability has no gradient", (3, 2, 2), [0, 6, 3, 1]),
        case("batch", "slots are numbered anew in every text", (2, 2, 2, 2), [[0, 1, 4], [2, 0, 3]]),
        case("one-place", "a capacity of 1, and more tokens than slots", (2, 1, 2), [1, 2, 2, 0]),
    ]


def _experts(operation: str) -> list[Case]:
    name = operation.replace("_", "-")

    def case(slug: str, about: str, x: tuple[int, ...], O: int) -> Case:
        id = f"MOE/{name}-{slug}"
        draw, (E, I) = Draw(id), (x[-3], x[-1])
        inputs = {"x": draw.normal(*x), "W": draw.normal(E, I, O)}
        if operation == "expert_linear":
            inputs["b"] = draw.normal(E, O)
        return Case(id, operation, about, inputs, {})

    return [
        case("two", "every expert has parameters of its own", (2, 3, 2), 4),
        case("batch", "(B, E, K, I): the gradients of an expert sum over the texts", (2, 2, 2, 3), 2),
        case("square", "E = K = I = O: no axis can be told by its length", (2, 2, 2), 2),
    ]


def expert_matmul() -> list[Case]:
    return _experts("expert_matmul")


def expert_linear() -> list[Case]:
    return _experts("expert_linear")


# --- L2: the layer ----------------------------------------------------------------------------------------------------


def switch_layer() -> list[Case]:
    def case(
        slug: str, about: str, x: Any, E: int, F: int, *, capacity: int, activation: str = "relu", valid: Any = None,
        biases: bool = True, router: Any = None,
    ) -> Case:  # fmt: skip
        id = f"MOE/layer-{slug}"
        draw = Draw(id)
        x = draw.normal(*x) if isinstance(x, tuple) else np.array(x)
        drawn = parameters(draw, expert_shapes(x.shape[-1], F, E, biases=biases))
        if router is not None:
            drawn["p.Wr"] = np.array(router)
        how = {"activation": activation, "capacity": capacity, "valid": None if valid is None else np.array(valid)}
        return Case(id, "switch_layer", about, {"x": x, **drawn}, how)

    tied = [[0.5, 0.5, -1.0], [-0.25, -0.25, 0.5]]
    return [
        case("wide-room", "every token has a place; two outputs, y and the balance of the text", (5, 3), 2, 4,
             capacity=5),
        case("dropped", "an expert takes the first token that chooses it; a later one has y = 0", (6, 2), 2, 3,
             capacity=1, activation="gelu_tanh"),
        case("half", "a capacity of two: third and later tokens overflow", (7, 2), 3, 2, capacity=2),
        case("empty-expert", "an expert that nobody chooses: no gradient but through the balance and the softmax",
             [[1.0, 0.5], [2.0, -0.5], [0.5, 0.25]], 3, 2, capacity=3, router=[[1.0, -1.0, 0.25], [0.25, 0.5, -0.75]]),
        case("tie", "two experts with one score: the first is chosen", [[2.0, 1.0], [1.0, -1.0], [1.0, 2.0]], 3, 2,
             capacity=2, router=tied),
        case("batch", "the tokens of a text compete among themselves alone", (2, 4, 3), 2, 2, capacity=2),
        case("padding", "a token that is not valid takes no place, is not counted and has y = 0", (2, 4, 2), 2, 3,
             capacity=2, valid=[[False, True, True, True], [True, True, False, False]]),
        case("no-biases", "without biases, as published", (4, 3), 3, 2, capacity=2, biases=False),
        case("one-token", "one token, two experts", (1, 2), 2, 3, capacity=1),
    ]  # fmt: skip


# --- L3 to L5: the model ----------------------------------------------------------------------------------------------

SWITCH: dict[str, Any] = {
    "vocabulary": 7,
    "context": 8,
    "layers": 2,
    "heads": 2,
    "width": 4,
    "hidden": 3,
    "experts": 3,
    "every": 2,
    "capacity_factor": 1.25,
    "balance": 0.01,
    "activation": "gelu_tanh",
    "eps": 1e-5,
}
EVERY = {**SWITCH, "every": 1, "experts": 2, "capacity_factor": 1.0, "balance": 0.25, "activation": "relu"}
ONE = {**EVERY, "layers": 1}
NARROW = {**ONE, "vocabulary": 4, "context": 3, "heads": 1, "width": 3, "hidden": 2, "capacity_factor": 1.25}


def _ids(name: str, config: dict[str, Any], *shape: int) -> np.ndarray:
    return Draw(name).integers(*shape, high=config["vocabulary"])


def switch() -> list[Case]:
    def case(slug: str, about: str, config: dict[str, Any], *ids: int) -> Case:
        id = f"MOE/model-{slug}"
        keywords = {"ids": _ids(f"{id} ids", config, *ids), "config": config}
        return Case(id, "switch", about, parameters(Draw(id), shapes(config)), keywords, taps=True)

    return [
        case("second-layer", "the second layer has experts; in use no token is dropped", SWITCH, 2, 4),
        case("every-layer", "every layer has experts; ids (T,)", EVERY, 5),
    ]


def switch_loss() -> list[Case]:
    def case(
        slug: str, about: str, config: dict[str, Any], *shape: int, ignored: tuple[tuple[int, int], ...] = ()
    ) -> Case:
        id = f"MOE/loss-{slug}"
        draw = Draw(f"{id} words")
        ids, targets = (draw.integers(*shape, high=config["vocabulary"]) for _ in range(2))
        for place in ignored:
            targets[place] = -100
        keywords = {"ids": ids, "targets": targets, "ignore": -100 if ignored else None, "config": config}
        return Case(id, "switch_loss", about, parameters(Draw(id), shapes(config)), keywords, taps=True)

    return [
        case("second-layer", "room for 1.25 * 5 / 3, that is two, tokens; 0.01 of the balance is added", SWITCH, 2, 5),
        case("each-layer", "the balances of the layers are summed, those of the texts averaged", EVERY, 2, 4),
        case(
            "ignored-targets",
            "an ignored target is not counted by the mean; its token is routed and balanced like the others, and the "
            "balance is added once, the mean over the texts, however many of their targets count",
            ONE,
            2,
            4,
            ignored=((0, 0), (0, 3), (1, 1)),
        ),
        case("rounded-down", "room for 1.25 * 3 / 2 = 1.875, that is one, token", NARROW, 1, 3),
    ]


def training() -> list[Case]:
    """A train_step of the model "switch"."""
    id = "ADAMW/switch-step"
    draw, batch = Draw(f"{id} moments"), Draw(f"{id} batch")
    m = {f"m.{path}": draw.normal(*shape, scale=0.25) for path, shape in shapes(ONE).items()}
    v = {f"v.{path}": np.abs(draw.normal(*shape, scale=0.25)) for path, shape in shapes(ONE).items()}
    ids, targets = (batch.integers(2, 4, high=ONE["vocabulary"]) for _ in range(2))
    keywords = {"model": "switch", "ids": ids, "targets": targets, "ignore": None, **RATES, "step": 2, "config": ONE}
    about = "matrices and tables decay, and so do the biases of the experts, which are tables (E, F)"
    inputs = {**parameters(Draw(id), shapes(ONE)), **m, **v}
    return [Case(id, "train_step", about, inputs, keywords, gradient=False, taps=True)]


def generate() -> list[Case]:
    """The model "switch" goes on with a text, the same with a cache, since no token is dropped in use."""

    def case(slug: str, about: str, *, cache: bool) -> Case:
        name = "GEN/switch 1"
        drawn = parameters(Draw(name), shapes(SWITCH), scale=0.5)
        drawn["p.token"] = drawn["p.token"] * 2
        keywords = {"model": "switch", **writing(_ids(f"{name} prompt", SWITCH, 2), SWITCH, 4, cache=cache)}
        return Case(f"GEN/switch-{slug}", "generate", about, drawn, keywords, gradient=False)

    return [
        case("greedy", "experts in the second layer", cache=False),
        case(
            "greedy-cache",
            "the same with a cache: a token finds the expert that it found in the whole text",
            cache=True,
        ),
    ]
