"""An argument of another kind than its annotation says is refused in one line; a scalar of NumPy is good."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from importlib import import_module
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refllm.optim
from refllm.errors import UserError
from refllm.generation import sampling
from refllm.kinds import kind_of, settle_fields
from refllm.optim.clip import clip_factor
from refllm.optim.schedule import warmup_cosine
from refllm.optim.update import adam, adamw, sgd
from spec_tests import examples
from spec_tests.operations import PARTS_OF_CLIPPING, Operation, cases, declared, operation_functions

FUNCTIONS = {function.__name__: function for function in operation_functions()}
OPERATIONS = [declared(function) for function in FUNCTIONS.values()]
EXAMPLES = list({example.function: example for example in examples.examples()}.values())

ARRAYS = [numpy.array(1.5), numpy.array(2), numpy.array(True), numpy.ones(2), numpy.ones((1, 1), int)]
WHOLE = [kind(n) for kind in (numpy.int8, numpy.uint64, numpy.int64) for n in (0, 1, 99)]
BROKEN = [kind(x) for kind in (numpy.float16, numpy.float32, numpy.float64, numpy.longdouble) for x in (0.5, "nan")]
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "None": st.none(),
    "bool": st.booleans(),
    "int": st.integers(-(10**30), 10**30),
    "float": st.floats(),
    "text": st.text() | st.sampled_from(["3", "no", "None", "1e-5", "True"]),
    "bytes": st.binary(),
    "complex": st.complex_numbers(),
    "list": st.lists(st.integers(0, 3), max_size=2),
    "tuple": st.lists(st.floats(), max_size=2).map(tuple),
    "dict": st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    "other number": st.sampled_from([Fraction(1, 2), Decimal(3), Decimal("NaN")]),
    "object": st.builds(object),
    "class": st.sampled_from([int, float, object]),
    "array": st.sampled_from(ARRAYS),
    "numpy bool": st.sampled_from([numpy.True_, numpy.False_]),
    "numpy int": st.sampled_from(WHOLE),
    "numpy float": st.sampled_from(BROKEN),
    "numpy complex": st.just(numpy.complex64(1j)),
    "numpy text": st.just(numpy.str_("no")),
    "numpy time": st.just(numpy.datetime64("2017-06-12")),
}
NUMPY = {name for name in VALUES if name.startswith("numpy") or name == "array"}
RIGHT = {
    "bool": {"bool", "numpy bool"},
    "int": {"int", "numpy int"},
    "float": {"int", "float", "numpy int", "numpy float"},
    "str": {"text", "numpy text"},
    "Frequencies": {"int", "float", "numpy int", "numpy float", "tuple"},
    "Tree": {"dict", "list", "tuple"},
    "Array": NUMPY,  # a scalar of NumPy is an array of no axes; its dtype and shape are looked at in test_doors.py
    "Sequence[Tree]": {"list", "tuple"},
    "Sequence[Array]": {"list", "tuple"} | NUMPY,  # the rows of an array are a sequence
}


def wrong_kinds(annotation: str) -> list[str]:
    """The names of the kinds of values that are not what an annotation asks for."""
    if annotation in ("Any", "") or annotation.startswith("tuple["):
        return []
    right = RIGHT.get(annotation.removesuffix(" | None"), set())
    if annotation.endswith(" | None"):
        right = right | {"None"}
    return [name for name in VALUES if name not in right]


@st.composite
def wrong_arguments(draw: Any, function: Callable[..., Any]) -> tuple[str, Any]:
    """A parameter of a function and a value of another kind than its annotation asks for."""
    parameters = inspect.signature(function).parameters.values()
    kinds = {p.name: wrong for p in parameters if (wrong := wrong_kinds(str(p.annotation)))}
    name = draw(st.sampled_from(sorted(kinds)))
    return name, draw(VALUES[draw(st.sampled_from(kinds[name]))])


def require_refused(call: Callable[[], Any], name: str, value: Any) -> None:
    with pytest.raises(UserError) as refusal:
        call()
    line = str(refusal.value)
    assert re.fullmatch(rf"\w+: {name} (must be|is a masked) [^\n]*", line), f"{name} = {value!r}: {line}"


@pytest.mark.one_in(8)
@pytest.mark.parametrize("operation", OPERATIONS, ids=repr)
@given(data=st.data())
def test_an_operation_refuses_an_argument_of_another_kind(operation: Operation, data: st.DataObject) -> None:
    case, function = data.draw(cases(operation)), FUNCTIONS[operation.name]
    name, value = data.draw(wrong_arguments(function))
    arguments = dict(zip(operation.positional, case.arrays, strict=True)) | case.keywords | {name: value}
    require_refused(lambda: function(**arguments), name, value)


@pytest.mark.one_in(8)
@pytest.mark.parametrize("example", EXAMPLES, ids=repr)
@given(data=st.data())
def test_what_stands_above_operations_refuses_an_argument_of_another_kind(
    example: examples.Example, data: st.DataObject
) -> None:
    name, value = data.draw(wrong_arguments(example.function))
    require_refused(lambda: example.run(**{name: value}), name, value)


OF_ADAM = {"step": 3, "lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "decay": 0.1, "out": None}
ONE = numpy.ones(3)
PLAIN: dict[Callable[..., Any], dict[str, Any]] = {
    sgd: {"p": ONE, "g": ONE, "v": ONE, "lr": 0.1, "momentum": 0.9, "decay": 0.1, "out": None},
    adam: {"p": ONE, "g": ONE, "m": ONE, "v": ONE, **OF_ADAM},
    adamw: {"p": ONE, "g": ONE, "m": ONE, "v": ONE, **OF_ADAM},
    clip_factor: {"gradients": [ONE], "limit": 1.0},
    warmup_cosine: {"step": 3, "max_lr": 0.1, "warmup": 2, "total": 9, "min_lr": 0.01},
    sampling.check_sampling: {"temperature": 1.0, "top_k": 3, "top_p": 0.5},
    sampling.choose: {
        "logits": numpy.eye(3), "temperature": 1.0, "top_k": 2, "top_p": 0.5, "uniforms": numpy.array([0.1, 0.5, 0.9]),
    },
}  # fmt: skip


def public_functions() -> Iterator[Callable[..., Any]]:
    """Those of the optimisers and of sampling."""
    rooms = [import_module(f"refllm.optim.{found.name}") for found in pkgutil.iter_modules(refllm.optim.__path__)]
    for module in (*rooms, sampling):
        for name, function in vars(module).items():
            if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_"):
                yield function


def test_every_optimiser_schedule_and_choice_is_looked_at() -> None:
    assert {f for f in public_functions() if f.__name__ not in PARTS_OF_CLIPPING} == set(PLAIN)


@pytest.mark.parametrize("function", PLAIN, ids=lambda function: function.__name__)
@given(data=st.data())
def test_an_optimiser_a_schedule_or_a_choice_refuses_an_argument_of_another_kind(
    function: Callable[..., Any], data: st.DataObject
) -> None:
    arguments = PLAIN[function]
    name, value = data.draw(wrong_arguments(function))
    require_refused(lambda: function(**arguments | {name: value}), name, value)


SCALARS: dict[type, tuple[type, ...]] = {
    bool: (numpy.bool_,),
    int: (numpy.int64, numpy.int16),
    float: (numpy.float64, numpy.longdouble),
}


def numpys(value: Any) -> list[Any]:
    return [kind(value) for kind in SCALARS.get(type(value), ())]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("operation", OPERATIONS, ids=repr)
@given(data=st.data())
def test_a_scalar_of_numpy_is_the_number_of_python(operation: Operation, data: st.DataObject) -> None:
    """To the bit, and float32 stays float32: as an array NumPy's float64 would make it float64."""
    case, function = data.draw(cases(operation)), FUNCTIONS[operation.name]
    case = case.with_arrays(tuple(x.astype("float32") for x in case.arrays))
    y, _ = function(*case.arrays, **case.keywords)
    for name, value in case.keywords.items():
        for scalar in numpys(value):
            z, _ = function(*case.arrays, **case.keywords | {name: scalar})
            for a, b in zip(*[one if isinstance(one, tuple) else (one,) for one in (y, z)], strict=True):
                assert a.dtype == b.dtype == numpy.float32, name
                numpy.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("function", PLAIN, ids=lambda function: function.__name__)
def test_an_optimiser_takes_scalars_of_numpy(function: Callable[..., Any]) -> None:
    arguments = {
        name: value.astype("float32") if isinstance(value, numpy.ndarray) else value
        for name, value in PLAIN[function].items()
    }
    wanted = function(**arguments)
    for name, value in arguments.items():
        for scalar in numpys(value):
            given_ = function(**arguments | {name: scalar})
            for a, b in zip(*[one if isinstance(one, tuple) else (one,) for one in (wanted, given_)], strict=True):
                assert getattr(a, "dtype", type(a)) == getattr(b, "dtype", type(b)), name
                numpy.testing.assert_array_equal(a, b)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("config", examples.CONFIGS.values(), ids=examples.CONFIGS)
@given(data=st.data())
def test_a_configuration_refuses_a_field_of_another_kind(config: Any, data: st.DataObject) -> None:
    fields = {name: str(kind) for name, kind in inspect.get_annotations(type(config)).items()}
    wrong = {name: kinds for name, kind in fields.items() if kind in RIGHT and (kinds := wrong_kinds(kind))}
    name = data.draw(st.sampled_from(sorted(wrong)))
    value = data.draw(VALUES[data.draw(st.sampled_from(wrong[name]))])
    with pytest.raises(UserError, match=rf"^{name} must be [^\n]*$"):
        type(config)(**{**{field: getattr(config, field) for field in fields}, name: value})


@pytest.mark.parametrize("config", examples.CONFIGS.values(), ids=examples.CONFIGS)
def test_a_configuration_of_numpys_scalars_is_that_of_pythons(config: Any) -> None:
    fields = {name: getattr(config, name) for name in inspect.get_annotations(type(config))}
    made = type(config)(**{name: next(iter(numpys(value)), value) for name, value in fields.items()})
    assert made == config
    assert {name: type(getattr(made, name)) for name in fields} == {name: type(value) for name, value in fields.items()}


def test_a_value_in_a_message_is_short_and_in_one_line() -> None:
    number = kind_of(float)
    assert number is not None
    for value, says in (
        ("a\nb", r"'a\\nb'"),
        ("x" * 1000, r"'x{59}\.\.\."),
        (numpy.ones((100, 100)), "ndarray"),
        (object(), "object"),
        (1j, "1j"),
        (b"3", "b'3'"),
    ):
        with pytest.raises(UserError, match=rf"^eps must be a number, got {says}$"):
            number.admitted("eps", value)
    with pytest.raises(UserError, match=r"^eps must be a whole number or None, got True$"):
        kind_of(int | None).admitted("eps", True)  # type: ignore[union-attr]


def test_what_an_annotation_does_not_say_is_not_asked() -> None:
    assert [kind_of(one) for one in (Any, Callable[..., Any], dict[str, int], int | str, tuple[int, ...])] == [None] * 5


def test_a_number_or_a_tuple_of_numbers() -> None:
    kind = kind_of(float | tuple[float, ...])
    assert kind is not None
    for right in (1, 0.5, (0.5, 1), ()):
        assert kind.admitted("base", right) is right
    for wrong in ("3", [0.5], (0.5, "3"), (True,), True, None):
        with pytest.raises(UserError, match=r"^base must be a number or a tuple of such, got "):
            kind.admitted("base", wrong)


class Undeclared:
    size: int

    def __init__(self, size: Any) -> None:
        self.size = size
        settle_fields(self)


def test_a_field_becomes_pythons_own() -> None:
    assert type(Undeclared(numpy.int8(3)).size) is int
    with pytest.raises(UserError, match=r"^size must be a whole number, got 3\.0$"):
        Undeclared(3.0)
