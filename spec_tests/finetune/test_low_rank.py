"""Laws of low-rank adapters. (LoRA)"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.finetune.low_rank import MATRICES, load_adapters, low_rank, low_rank_tuning, save_adapters
from refllm.models import bert, published
from refllm.parameters import count, named_leaves
from spec_tests.finetune.models import FAMILIES, Family, moved, same, start
from spec_tests.gradients import assert_gradients_agree, random_tree

every_family = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
SHAPES = {"W": (4, 5), "A": (4, 2), "B": (2, 5)}


def tuned(family: Family, **options: Any) -> Any:
    how = {"rank": 1, "alpha": 3.0, **options}
    return low_rank_tuning(model=family.model, config=family.config, parameters=family.parameters, **how)


@pytest.mark.parametrize("lead", [(), (3,)])
def test_the_gradients_of_the_three_matrices_agree_with_differences(lead: tuple[int, ...]) -> None:
    p = random_tree({name: (*lead, *shape) for name, shape in SHAPES.items()}, seed=0)

    def f(p: Any) -> Any:
        y, back = low_rank(p["W"], p["A"], p["B"], scale=0.7)
        return y, lambda dy: dict(zip("WAB", back(dy), strict=True))

    assert_gradients_agree(f, p)


def test_the_merged_matrix_does_to_a_text_what_matrix_and_adapter_do_side_by_side() -> None:
    """x (W + s A B) = x W + s (x A) B, the form of the paper, in which no merged matrix exists."""
    p = random_tree(SHAPES, seed=1)
    x = numpy.random.default_rng(0).standard_normal((7, 4))
    merged, _ = low_rank(p["W"], p["A"], p["B"], scale=0.7)
    numpy.testing.assert_allclose(x @ merged, x @ p["W"] + 0.7 * (x @ p["A"]) @ p["B"], rtol=1e-12, atol=1e-14)


@every_family
def test_the_merged_tree_is_an_ordinary_model_with_the_loss_of_the_adapted_one(family: Family) -> None:
    tuning = tuned(family)
    trained = moved(tuning)
    objective, totals = tuning.wrap(family.objective), family.objective.totals(family.batch)
    assert (
        family.loss(tuning.full(trained)) == objective.loss(trained, family.batch, totals=totals, dropout_mask=None)[0]
    )
    assert family.loss(tuning.full(trained)) != family.loss(tuning.full(start(tuning)))


@every_family
def test_what_is_added_to_a_matrix_has_the_rank(family: Family) -> None:
    tuning = tuned(family)
    full = dict(named_leaves(tuning.full(moved(tuning))))
    adapted = [path[:-2] for path in tuning.model.leaves if path.endswith(".A")]
    assert adapted
    for path in adapted:
        assert path == "token" or "attention.W" in path
        assert numpy.linalg.matrix_rank(full[path] - tuning.frozen[path], tol=1e-9) == 1


@pytest.mark.parametrize("rank", [1, 2])
def test_the_scale_is_alpha_over_rank(rank: int) -> None:
    path = "layers.0.attention.Wqkv"
    tuning = tuned(FAMILIES["gpt"], rank=rank, alpha=6.0, pattern="Wqkv")
    trained = moved(tuning)
    change = dict(named_leaves(tuning.full(trained)))[path] - tuning.frozen[path]
    numpy.testing.assert_allclose(change, 6 / rank * trained[f"{path}.A"] @ trained[f"{path}.B"], rtol=1e-9)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.inf, math.nan])
def test_adapters_that_would_count_nothing_or_everything_are_refused(alpha: float) -> None:
    with pytest.raises(UserError, match="alpha must be a positive number, got"):
        tuned(FAMILIES["gpt"], alpha=alpha)


def test_a_pattern_chooses_the_matrices_and_another_one_what_is_trained_whole() -> None:
    family = FAMILIES["bert"]
    every = {path[:-2] for path in tuned(family, pattern=MATRICES).model.leaves if path.endswith(".A")}
    assert every == {path for path in tuned(family).frozen if path.startswith("layers") and ".W" in path}
    leaves = tuned(family, whole="^pooler").model.leaves
    assert leaves["pooler.W"] == (4, 4)
    assert "pooler.W" not in tuned(family, whole="^pooler").frozen


@pytest.mark.parametrize(("rank", "most"), [(4, 0.004), (8, 0.008)])
def test_the_adapters_of_a_published_bert_are_a_small_share_of_it(rank: int, most: float) -> None:
    """BERT base: (12 x (768 + 2304 + 768 + 768) + 30522 + 768) x rank, and a head."""
    config = published.bert("base", outputs=("classes",))
    known = {path: _Shape(shape) for path, shape in named_leaves(bert.shapes(config)) if "classes" not in path}
    tuning = low_rank_tuning(model=bert, config=config, parameters=known, rank=rank)
    assert tuning.count == (12 * (768 + 2304 + 768 + 768) + 30522 + 768) * rank + 2 * 768 + 2
    assert tuning.count / count(tuning.structure) < most


class _Shape:
    """A leaf of which only the shape matters, so that no 100 million numbers are needed."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape


def test_saved_adapters_come_back_to_the_bit_and_without_the_model(tmp_path: Path) -> None:
    family = FAMILIES["bert"]
    tuning = tuned(family, whole="^pooler")
    trained = moved(tuning)
    save_adapters(tmp_path / "adapters", tuning, trained)
    names = {path for path in trained if path.split(".")[0] in ("classes", "pooler")}
    assert names | {path for path in trained if path.endswith((".A", ".B"))} == trained.keys()
    again, loaded = load_adapters(
        tmp_path / "adapters", model=family.model, config=family.config, parameters=family.parameters
    )
    assert same(loaded, trained)
    assert same(again.full(loaded), tuning.full(trained))


def test_adapters_on_other_parameters_than_their_own_are_refused(tmp_path: Path) -> None:
    family = FAMILIES["gpt"]
    tuning = tuned(family)
    save_adapters(tmp_path / "adapters", tuning, start(tuning))
    other = family.parameters
    other["token"][0, 0] += 1e-9
    with pytest.raises(UserError, match="were trained on other parameters; give the model they belong to"):
        load_adapters(tmp_path / "adapters", model=family.model, config=family.config, parameters=other)


def test_adapters_overwrite_nothing_and_a_checkpoint_of_something_else_is_none(tmp_path: Path) -> None:
    family = FAMILIES["gpt"]
    tuning = tuned(family)
    (tmp_path / "mine.safetensors").write_bytes(b"kept")
    with pytest.raises(UserError, match="is not empty and will not be overwritten"):
        save_adapters(tmp_path, tuning, start(tuning))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.safetensors"]
    (tmp_path / "state.json").write_text('{"format": 1, "files": {}}')
    with pytest.raises(UserError, match="holds no adapters"):
        load_adapters(tmp_path, model=family.model, config=family.config, parameters=family.parameters)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_that_saves_nothing_is_refused(rank: int) -> None:
    """4 x 4: two columns and two rows are as many numbers as the matrix."""
    with pytest.raises(UserError, match=f"below 2 for two matrices .* got {rank}"):
        tuned(FAMILIES["gpt"], rank=rank, pattern="Wo")


def test_a_pattern_that_finds_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="no matrix of the trained model is found by the pattern 'convolution'"):
        tuned(FAMILIES["gpt"], pattern="convolution")
