"""The text of published models computes what the models do, and names every value once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.models import bert, by_name, llama
from refllm.parameters import from_names, map_leaves
from refllm.pretrained.architectures import ARCHITECTURES
from refllm.verify.ports.chosen import inputs
from refllm.verify.ports.evaluation import evaluated
from refllm.verify.ports.program import Program, program
from refllm.verify.ports.published import bert as bert_text
from spec_tests.pretrained.folders import CONFIGS, random_leaves


def forward(kind: str, config: Any, p: Any, given: dict[str, Any]) -> Any:
    """What refllm/models computes."""
    model: Any = by_name(kind)
    if kind == "encoder_decoder":
        arrays = {"source": given["source"], "attention_mask": given["mask"], "ids": given["ids"]}
        return model.forward(p, **arrays, config=config, dropout_mask=None)[0]
    if kind != "bert":
        return model.forward(p, ids=given["ids"], config=config, dropout_mask=None, cache=None)[0]
    mask = given["mask"][:, None, None, :]
    h, _ = bert.encode(
        p, ids=given["ids"], segments=given["segments"], attention_mask=mask, config=config, dropout_mask=None
    )
    if "masked" in config.outputs:
        return bert.masked_logits(h, p, config=config)[0]
    return bert.class_logits(h, p, dropout_mask=None, rate=0.0)[0]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_text_computes_what_the_model_does(name: str) -> None:
    kind, config = CONFIGS[name]
    architecture = ARCHITECTURES[kind]
    shapes = by_name(architecture.model).shapes(config)
    p = from_names(shapes, random_leaves(architecture, config))
    steps: Program = program(architecture.model, config)
    wide = map_leaves(lambda x: x.astype("float64"), p)
    for given in [one for one in inputs(steps) if one.name in ("text", "padded")]:
        seen: list[str] = []

        def look(name: str, x: Any, seen: list[str] = seen) -> Any:
            seen.append(name)
            return x

        last = evaluated(steps, p, given.arrays, dtype="float64", look=look)[-1]
        assert len(seen) == len(set(seen))
        assert all(0 <= steps.step_of(name) < len(steps.steps) for name in seen)
        got = last[steps.steps[-1].gives]
        real = given.arrays["mask"] if got.shape[:2] == given.arrays["mask"].shape else numpy.ones(got.shape[:2], bool)
        wanted = forward(architecture.model, config, wide, given.arrays)
        numpy.testing.assert_allclose(got[real], wanted[real], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("positions", ["alibi", "relative", "none"])
def test_a_llama_without_a_rotation_has_a_text_too(positions: str) -> None:
    """Runs have these positions; published models do not."""
    config = llama.Config(
        vocabulary=11, context=12, layers=2, heads=3, kv_heads=1, width=12, hidden=8, head_width=4, positions=positions
    )
    p = map_leaves(lambda x: x.astype("float64"), llama.initial(config, numpy.random.default_rng(0)))
    ids = numpy.arange(10)[None] % 11
    given = {"ids": ids, "mask": numpy.ones(ids.shape, bool)}
    last = evaluated(program("llama", config), p, given, dtype="float64")[-1]
    wanted = llama.forward(p, ids=ids, config=config, dropout_mask=None, cache=None)[0]
    numpy.testing.assert_allclose(last["x"], wanted, rtol=1e-12, atol=1e-12)


def test_the_page_names_every_value_of_the_text() -> None:
    page = (Path(__file__).parents[3] / "docs" / "published.md").read_text()
    text = "".join(path.read_text() for path in Path(bert_text.__file__).parent.glob("*.py"))
    names = {name.replace("{number}", str(n)) for name in re.findall(r'tap\(f?"([^"]+)"', text) for n in (1, 2, 3)}
    assert len(names) > 20
    for name in names:
        assert f"`{name.replace('cross.', '.')}`" in page or f"`{name}`" in page, name
