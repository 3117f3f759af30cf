"""Laws of predicted steps and trainings, and what is published of both."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refllm.errors import UserError
from refllm.models import gpt, llama
from refllm.models.published import gpt2, llama2
from refllm.parameters import count
from refllm.scaling import search
from refllm.scaling.cuts import MOMENTS, STATES, WEIGHTS, Cut
from refllm.scaling.links import Link
from refllm.scaling.machines import MACHINES
from refllm.scaling.memory import activations, held, needed
from refllm.scaling.steps import predicted, slowest, trained
from refllm.scaling.workloads import PUBLISHED, of_config, published, useful_batch

A100 = MACHINES["a100"]
FREE = replace(A100, inside=Link(0, math.inf), between=Link(0, math.inf), spread=0)  # nothing but computing takes time
WORKLOAD = published("llama2-7b")
# GPU hours on A100 80GB: Touvron et al. 2023 (arXiv:2307.09288) table 2; on up to 2,000 of them (sec. 2.2.1)
HOURS = {"llama2-7b": 184_320, "llama2-13b": 368_640, "llama2-70b": 1_720_320}


@pytest.mark.parametrize("name", HOURS)
def test_the_hours_of_llama_2_are_predicted_to_a_tenth(name: str) -> None:
    workload = published(name)
    found = trained(workload, A100, search.best(workload, A100, 2048))
    assert found.process_hours == pytest.approx(HOURS[name], rel=0.1)


def test_operations_are_those_of_the_products() -> None:
    """Of one text forward, counted shape by shape: 2 for each weight and place, 4 T² C for attention. Thrice that is a
    step."""
    config = gpt2("small")
    workload, T, C = published("gpt2-small"), config.context, config.width
    layer = T * C * 3 * C + T * C * C + 2 * T * C * config.hidden + 2 * T * T * C
    forward = 2 * (config.layers * layer + T * C * config.vocabulary)
    assert workload.flops * T == pytest.approx(3 * forward, rel=2e-3)  # norms and biases have no product


def test_tables_that_are_only_looked_up_are_no_products() -> None:
    assert published("gpt2-small").looked_up == 1024 * 768
    assert published("llama2-7b").looked_up == 32000 * 4096
    assert published("llama2-70b").kv_width == 1024
    assert published("llama2-7b").parameters == count(llama.shapes(llama2("7b")))
    assert of_config(gpt2("xl"), batch=1, tokens=1, model=gpt).parameters == 1_557_611_200


@given(
    st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 8]), st.sampled_from([1, 2, 4]),
    st.sampled_from(STATES), st.booleans(),
)  # fmt: skip
def test_without_links_or_bubbles_n_processes_take_a_part_of_the_time(
    data: int, tensor: int, pipeline: int, sequence: int, state: str, recompute: bool
) -> None:
    cut = Cut(data, tensor, pipeline, sequence, state, recompute=recompute)
    step, alone = predicted(WORKLOAD, FREE, cut), predicted(WORKLOAD, FREE, Cut(recompute=recompute))
    assert step.compute * cut.processes == pytest.approx(alone.compute)
    assert step.communication == step.stragglers == 0
    assert step.bubble == pytest.approx(step.compute * (pipeline - 1) / cut.micro_batches(WORKLOAD))
    assert step.total == pytest.approx(step.compute + step.bubble)


@given(st.sampled_from(sorted(PUBLISHED)), st.sampled_from([1, 2, 8, 64, 512]), st.sampled_from(STATES))
def test_slower_links_never_make_a_step_faster(name: str, data: int, state: str) -> None:
    workload, cut = published(name), Cut(data=data, tensor=4, pipeline=2, sequence=2, state=state)
    slow = replace(A100, between=Link(50 * A100.between.latency, A100.between.bandwidth / 50))
    assert predicted(workload, slow, cut).total >= predicted(workload, A100, cut).total
    none = replace(A100, overlap=0.0)
    assert predicted(workload, none, cut).total >= predicted(workload, A100, cut).total


def test_uneven_texts_are_as_slow_as_the_process_with_the_most() -> None:
    three = replace(WORKLOAD, batch=3)
    assert predicted(three, FREE, Cut(data=2)).compute == pytest.approx(predicted(three, FREE, Cut()).compute * 2 / 3)


def test_the_slowest_of_many_is_no_later_than_expected() -> None:
    draws = numpy.random.default_rng(0).standard_normal((2000, 64))
    mean = float(draws.max(axis=1).mean())
    assert 0.7 * slowest(1.0, 64) < mean < slowest(1.0, 64)
    assert slowest(0.3, 1) == 0


def test_state_that_is_cut_needs_so_much_less() -> None:
    """16 bytes a weight in all, of which 12 are the optimiser's: Rajbhandari et al. 2020 (arXiv:1910.02054) fig. 1."""
    workload = replace(WORKLOAD, parameters=7_500_000_000)
    sizes = [held(workload, Cut(data=64, state=state)) / 1e9 for state in STATES]
    assert sizes == pytest.approx([120.0, 31.4, 1.9], abs=0.05)
    assert held(workload, Cut(data=64, state=MOMENTS)) < held(workload, Cut(data=32, state=MOMENTS))


def test_what_is_kept_is_cut_with_what_is_computed() -> None:
    alone = activations(WORKLOAD, Cut())
    for cut in (Cut(tensor=2), Cut(sequence=2)):
        assert activations(WORKLOAD, cut) == pytest.approx(alone / 2)
    assert activations(WORKLOAD, Cut(pipeline=4)) > activations(WORKLOAD, Cut()) / 4  # four micro-batches are under way
    assert activations(WORKLOAD, Cut(recompute=True)) < alone / 8


def test_the_best_cut_fits_and_no_other_is_faster() -> None:
    processes = 64
    found = search.best(WORKLOAD, A100, processes)
    assert found.processes == processes
    assert needed(WORKLOAD, found) <= A100.memory
    seconds = predicted(WORKLOAD, A100, found).total
    others = [c for c in search.cuts(WORKLOAD, A100, processes) if needed(WORKLOAD, c) <= A100.memory]
    assert len(others) > 10
    assert all(predicted(WORKLOAD, A100, cut).total >= seconds for cut in others)


def test_too_little_memory_and_too_small_a_batch_are_said() -> None:
    with pytest.raises(UserError, match=r"8 processes of 80 GB are too few.*needs 1\d\d GB"):
        search.best(published("llama2-70b"), A100, 8)
    with pytest.raises(UserError, match="give 7919 processes nothing to do"):
        search.best(published("gpt2-small"), A100, 7919)
    assert not any(cut.state == WEIGHTS for cut in search.cuts(WORKLOAD, A100, 1))


def test_the_useful_batch_grows_as_the_loss_falls() -> None:
    """Kaplan et al. 2020 (arXiv:2001.08361) sec. 1.2: 2e8 tokens at a loss of 1 nat, and the power of it."""
    assert useful_batch(1.0) == 2e8
    assert useful_batch(2.0) == pytest.approx(2e8 / 2 ** (1 / 0.21))


@pytest.mark.parametrize(
    "changes", [{"share": 0.0}, {"flops": math.inf}, {"node": 0}, {"price": -1.0}, {"overlap": 2.0}]
)
def test_a_machine_that_cannot_be_is_refused(changes: dict[str, float]) -> None:
    with pytest.raises(UserError):
        replace(A100, **changes)  # type: ignore[arg-type]
