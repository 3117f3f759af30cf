"""Laws of every function with a pullback above the operations, found by itself (spec_tests/examples.py)."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.parameters import Tree, map_leaves, named_leaves
from refllm.shapes import Declared
from spec_tests import examples
from spec_tests.examples import Example
from spec_tests.language_models import model_of
from spec_tests.layouts import LAYOUTS, relaid, relaid_tree

EXAMPLES = list(examples.examples())
every_example = pytest.mark.parametrize("example", EXAMPLES, ids=repr)
WHOLE = [example for example in EXAMPLES if example.whole]
every_whole_model = pytest.mark.parametrize("example", WHOLE, ids=repr)
REFUSALS = (ValueError, TypeError, IndexError, UserError)
ONE_LINE = re.compile(r"[a-z]\w*: [^\n]+")  # the function that refuses, and what


def leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Every array in what a pullback gives, tuples included."""
    if isinstance(tree, (tuple, list)):
        return {k: v for i, child in enumerate(tree) for k, v in leaves(child, f"{prefix}.{i}").items()}
    if isinstance(tree, dict):
        return {k: v for name, child in tree.items() for k, v in leaves(child, f"{prefix}.{name}").items()}
    return {} if tree is None else {prefix: tree}


def refused(call: Callable[[], Any], *, by: str = r"[a-z]\w*", what: str) -> str:
    """The one line with which a call is refused."""
    try:
        call()
    except REFUSALS as error:
        line = str(error)
    else:
        raise AssertionError(f"{what}: accepted")
    assert ONE_LINE.fullmatch(line), f"{what}: {line}"
    assert re.match(rf"{by}: ", line), f"{what}: not refused by {by}: {line}"
    return line


def test_every_function_has_an_example() -> None:
    named = {example.function for example in EXAMPLES}
    assert {function for _, function in examples.functions()} == named
    rooms = {function.__module__.split(".")[1] for function in named}
    assert rooms == set(examples.ROOMS)
    assert len(named) > 50


@pytest.mark.one_in(18)
@every_example
def test_memory_layout_does_not_matter(example: Example) -> None:
    """Neither that of the arguments, all of them read-only, nor that of the upstream gradient."""
    y, back = example.run()
    dy = example.cotangents(y, seed=1)
    expected = [*y, *leaves(back(*dy)).values()]
    for layout in LAYOUTS:
        again, pull = example.run(**{name: relaid_tree(value, layout) for name, value in example.arguments.items()})
        got = [*again, *leaves(pull(*[relaid(d, layout) for d in dy])).values()]
        for a, b in zip(expected, got, strict=True):
            assert a.dtype == b.dtype
            numpy.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-11, err_msg=layout)


@pytest.mark.one_in(4)
@every_example
def test_the_pullback_is_linear_in_a_random_gradient(example: Example) -> None:
    y, back = example.run()
    one, other = example.cotangents(y, seed=1), example.cotangents(y, seed=2)
    both = leaves(back(*[numpy.asarray(2 * a - 3 * b) for a, b in zip(one, other, strict=True)]))
    first, second = leaves(back(*one)), leaves(back(*other))
    for name, d in both.items():
        numpy.testing.assert_allclose(d, 2 * first[name] - 3 * second[name], rtol=1e-8, atol=1e-10, err_msg=name)


def wrong_gradients(dy: Any) -> Iterator[tuple[str, Any]]:
    """What is no gradient of a value of the shape and dtype of dy."""
    shape, random = dy.shape, numpy.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {"an axis more": (1, *shape), "two axes more": (2, 3, *shape)}
    if shape:
        shapes |= {
            "no axes": (), "without the first axis": shape[1:], "without the last axis": shape[:-1],
            "twice the rows": (2 * shape[0], *shape[1:]), "a column more": (*shape[:-1], shape[-1] + 1),
            "one row": (1, *shape[1:]), "flat": (dy.size,), "empty": (0, *shape[1:]),
            "axes turned": shape[::-1], "first axes merged": (shape[0] * shape[-1], *shape[1:-1]),
        }  # fmt: skip
    for what, other in shapes.items():
        if other != shape:
            yield what, numpy.asarray(random.standard_normal(other), dy.dtype)
    for dtype in ("float32", "float16", "int64", "bool", "complex128", "object"):
        yield dtype, dy.astype(dtype)
    yield from {"a list": dy.tolist(), "a number": 1.0, "None": None, "masked": numpy.ma.masked_array(dy)}.items()


@every_example
def test_a_gradient_that_is_not_one_of_the_value_is_refused_by_name(example: Example) -> None:
    y, back = example.run()
    dy = example.cotangents(y, seed=1)
    name = example.function.__name__
    for i, one in enumerate(dy):
        for what, wrong in wrong_gradients(one):
            line = refused(partial(back, *dy[:i], wrong, *dy[i + 1 :]), by=name, what=what)
            assert re.match(rf"{name}: dy( of {example.contract.outputs[0].name}| of \w+)?\b", line), line
    refused(partial(back, *dy, dy[0]), by=name, what="one too many")
    refused(partial(back, *dy[1:]), by=name, what="one too few")
    back(*dy)


def wrong_arrays(array: Declared, x: Any) -> Iterator[tuple[str, Any]]:
    """What an array that is declared so must not be, whatever the others are."""
    kinds = {"float": "int64", "bool": "int64", "int": "float64", "real": "complex128"}
    yield kinds[array.kind], x.astype(kinds[array.kind])
    yield "object", x.astype(object)
    yield from {"a list": x.tolist(), "a number": 1.5, "masked": numpy.ma.masked_array(x)}.items()
    if not array.optional:
        yield "None", None
    if not array.batched and array.how == "":
        yield "an axis more", x[None]
        yield "an axis less", x[0]


@every_example
def test_an_array_that_is_not_the_declared_one_is_refused(example: Example) -> None:
    for array in example.contract.inputs:
        x = example.arguments[array.name]
        if x is None or array.count is not None:
            continue
        for what, wrong in wrong_arrays(array, x):
            refused(
                partial(example.run, **{array.name: wrong}),
                by=example.function.__name__,
                what=f"{array.name}: {what}",
            )


@every_example
def test_arrays_that_do_not_belong_together_are_refused(example: Example) -> None:
    """A letter that two arrays share has one size: an array with another first or last one is refused."""
    inputs = [a for a in example.contract.inputs if a.count is None and example.arguments[a.name] is not None]
    for array in inputs:
        x = example.arguments[array.name]
        for axis in (0, -1):
            shared = array.how == "" and not array.batched and x.ndim and array.dimensions[axis].isalpha()
            if shared and any(array.dimensions[axis] in other.dimensions for other in inputs if other is not array):
                longer = numpy.concatenate([x, x.take([0], axis)], axis)
                what = f"{array.name}: another {array.dimensions[axis]}"
                refused(partial(example.run, **{array.name: longer}), what=what)


@pytest.mark.one_in(8)
@every_example
def test_indices_of_every_integer_dtype_give_the_same(example: Example) -> None:
    y, back = example.run()
    dy = example.cotangents(y, seed=1)
    expected = [*y, *leaves(back(*dy)).values()]
    indices = [a.name for a in example.contract.inputs if a.kind == "int"]
    for dtype in ("int8", "uint8", "int32", "uint64", ">i8") if indices else ():
        again, pull = example.run(**{name: example.arguments[name].astype(dtype) for name in indices})
        for a, b in zip(expected, [*again, *leaves(pull(*dy)).values()], strict=True):
            assert numpy.array_equal(a, b), dtype


@every_example
def test_indices_out_of_range_are_refused(example: Example) -> None:
    for array in example.contract.inputs:
        if array.bound is None:
            continue
        for wrong in (-1, 10**6):
            ids = example.arguments[array.name].copy()
            ids.flat[-1] = wrong
            refused(
                partial(example.run, **{array.name: ids}),
                what=f"{array.name} with {wrong}",
            )


def without(p: Tree, path: str) -> Tree:
    return _changed(p, path, None)


def _changed(p: Tree, path: str, leaf: Any) -> Tree:
    p = copy.deepcopy(p)
    *above, last = path.split(".")
    node = p
    for step in above:
        node = node[int(step)] if isinstance(node, list) else node[step]
    if leaf is None:
        del node[last]
    else:
        node[last] = leaf
    return p


def other_shapes(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    yield (1, *shape)
    for axis, n in enumerate(shape):
        for m in (n + 1, 2 * n, 1, n - 1):
            if m != n and m > 0:
                yield (*shape[:axis], m, *shape[axis + 1 :])
    if shape[::-1] != shape:
        yield shape[::-1]


def name_of_model(config: Any) -> str:
    return model_of(config).__name__.rpartition(".")[2]


@pytest.mark.one_in(24)
@every_whole_model
def test_parameters_of_another_structure_are_refused(example: Example) -> None:
    p, random = example.arguments["p"], numpy.random.default_rng(0)
    model = name_of_model(example.arguments["config"])
    for path, leaf in named_leaves(p):
        for what, wrong in (
            ("missing", without(p, path)),
            ("a list", _changed(p, path, leaf.tolist())),
            ("masked", _changed(p, path, numpy.ma.masked_array(leaf))),
            ("float32", _changed(p, path, leaf.astype("float32"))),
            ("int64", _changed(p, path, leaf.astype("int64"))),
            *[(str(shape), _changed(p, path, random.standard_normal(shape))) for shape in other_shapes(leaf.shape)],
        ):
            may = what == "missing" and path == "head" and example.function.__name__ == "encode"
            if not may:
                refused(partial(example.run, p=wrong), by=model, what=f"{path} {what}")
    refused(partial(example.run, p={**p, "more": numpy.ones(3)}), by=model, what="a leaf too many")
    refused(partial(example.run, p=[*p.values()]), by=model, what="a list of leaves")
    for name, part in (("", p), *[(name, p[name]) for name in ("encoder", "decoder") if name in p]):
        if isinstance(part.get("layers"), list):
            for what, layers in (("less", part["layers"][:-1]), ("more", [*part["layers"], part["layers"][-1]])):
                other = {**part, "layers": layers}
                wrong = {**p, name: other} if name else other
                refused(partial(example.run, p=wrong), by=model, what=f"a layer {what}")


@every_whole_model
def test_a_config_that_the_parameters_were_not_made_with_is_refused(example: Example) -> None:
    """Wherever the config says that there are other parameters."""
    config, p = example.arguments["config"], example.arguments["p"]
    shapes, model = model_of(config).shapes, name_of_model(config)
    changes = [{"vocabulary": 9}, {"width": 2 * config.width}, {"layers": 3}, {"hidden": 17}, {"norm": "post"}]
    changes += [{"norm": "pre"}, {"tied": not getattr(config, "tied", False)}, {"positions": "learned"}]
    for change in changes:
        try:
            other = type(config)(**{**config.as_dict(), **change})
        except (TypeError, UserError):
            continue
        if shapes(other) != shapes(config):
            refused(partial(example.run, config=other, dropout_mask=None), by=model, what=str(change))
    assert example.run(p=map_leaves(numpy.copy, p))


@every_whole_model
def test_another_number_of_draws_is_refused(example: Example) -> None:
    dropout_mask, function = example.arguments["dropout_mask"], example.function.__name__
    if not dropout_mask or function in ("classification_loss", "contrastive_loss", "sentence_vectors"):
        return
    for wrong in _draws_too_few_or_many(dropout_mask):
        refused(partial(example.run, dropout_mask=wrong), what="draws")


def _draws_too_few_or_many(dropout_mask: Tree) -> Iterator[Tree]:
    """Without one of its entries, and with one that no use of dropout takes, at every place of the tree."""
    if isinstance(dropout_mask, dict):
        yield {**dropout_mask, "another": numpy.ones((1, 1), bool)}
        for name, child in dropout_mask.items():
            yield {other: dropout_mask[other] for other in dropout_mask if other != name}
            yield from ({**dropout_mask, name: wrong} for wrong in _draws_too_few_or_many(child))
    elif isinstance(dropout_mask, list):
        yield dropout_mask[:-1]
        yield [*dropout_mask, dropout_mask[-1]]
        yield from ([wrong, *dropout_mask[1:]] for wrong in _draws_too_few_or_many(dropout_mask[0]))


@every_example
def test_a_whole_number_that_is_far_too_large_gives_a_result_or_one_line(example: Example) -> None:
    for name, number in example.arguments.items():
        if isinstance(number, int) and not isinstance(number, bool):
            for large in (7 * number + 7, 10**9, 2**70):
                line = ""
                try:
                    example.run(**{name: large})
                except REFUSALS as error:
                    line = str(error)
                assert not line or ONE_LINE.fullmatch(line), f"{name} = {large}: {line}"


@every_example
def test_draws_and_states_that_are_no_tree_of_theirs_are_refused(example: Example) -> None:
    layers = len(example.arguments["p"]) if "p" in example.arguments else 0
    for name in ("dropout_mask", "states"):
        if isinstance(example.arguments.get(name), (dict, list)) or (name == "states" and name in example.arguments):
            for wrong in ([], [None] * (layers + 1), {"more": None}, numpy.ones(3)):
                refused(partial(example.run, **{name: wrong}), what=f"{name}: {type(wrong).__name__}")


@every_whole_model
def test_an_empty_batch_and_an_empty_text_give_the_right_shapes_or_one_line(example: Example) -> None:
    sizes: dict[str, int] = {}
    for array in example.contract.inputs:
        for letter, n in zip(array.dimensions, example.arguments[array.name].shape, strict=True):
            sizes.setdefault(letter, n)
    for letter in ("B", "T", "S", "N"):
        if letter not in sizes:
            continue
        changes = {
            array.name: x.take(range(0), array.dimensions.index(letter))
            for array in example.contract.inputs
            if letter in array.dimensions and (x := example.arguments[array.name]) is not None
        }
        changes |= {a.name: _rows(example, a, letter) for a in example.contract.inputs if f"n*{letter}" in a.dimensions}
        line = ""
        try:
            y, back = example.run(**changes, dropout_mask=None)
        except REFUSALS as error:
            line = str(error)
        if line:
            assert ONE_LINE.fullmatch(line), f"{letter} = 0: {line}"
            continue
        for value in y:
            assert numpy.isfinite(value).all()
        gradients = leaves(back(*example.cotangents(y, seed=0)))
        assert gradients
        for name, d in gradients.items():
            assert numpy.isfinite(d).all(), name
            assert letter == "S" or not d.any(), f"{letter} = 0 and yet {name} has a gradient"


def _rows(example: Example, array: Declared, letter: str) -> Any:
    return example.arguments[array.name].take(range(0), array.dimensions.index(f"n*{letter}"))
