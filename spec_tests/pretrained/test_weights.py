"""The forms in which the weights of a published model are kept: the numbers, and the room that they take."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy
import pytest

from refllm.errors import UserError
from refllm.generation.writer import SequenceWriter
from refllm.models import bert, encoder_decoder
from refllm.narrow import Narrow
from refllm.parameters import from_names
from refllm.pretrained.folder import Folder, open_folder
from refllm.pretrained.tensor_file import narrowed
from refllm.pretrained.weights import WEIGHTS
from spec_tests.pretrained.folders import CONFIGS, made, rewrite, written_tensors

TYPES = {"BF16": 2, "F16": 2}


def in_16_bits(which: str, directory: Path, dtype: str) -> Folder:
    made(which, directory)
    tensors: Any = {}
    for name, (_, shape, data) in written_tensors(directory).items():
        x = numpy.frombuffer(data, "<f4").reshape(shape)
        x = (x.view(numpy.uint32) & 0xFFFF0000).view(numpy.float32) if dtype == "BF16" else x.astype("<f2").astype("f4")
        tensors[name] = (dtype, shape, narrowed(x, dtype))
    rewrite(directory, tensors)
    return open_folder(directory)


def computed(folder: Folder, weights: str) -> Any:
    """What the model computes: logits of a decoder, states of an encoder, logits of what writes with a memory."""
    p, config = from_names(folder.shapes, folder.leaves(weights)), folder.config
    ids = numpy.array([[1, 5, 2, 7]])
    if folder.model is encoder_decoder:
        writer = SequenceWriter(p, model=folder.model, config=config, source=ids, attention_mask=None, room=4)
        return writer.logits(numpy.array([[0, 3]]))
    if folder.model is bert:
        return bert.encode(
            p, ids=ids, segments=0 * ids, attention_mask=None, config=config, dropout_mask=None
        )[0]  # fmt: skip
    return folder.model.forward(p, ids=ids, config=config, dropout_mask=None, cache=None)[0]


@pytest.mark.parametrize("dtype", TYPES)
def test_16_bits_that_stay_compute_what_widened_ones_compute(dtype: str, tmp_path: Path) -> None:
    for which in CONFIGS:
        folder = in_16_bits(which, tmp_path / which, dtype)
        wide, found = computed(folder, "float32"), computed(folder, "stored")
        numpy.testing.assert_allclose(found, wide, rtol=2e-5, atol=2e-5 * abs(wide).max(), err_msg=which)


def test_what_stays_is_a_view_of_the_file(tmp_path: Path) -> None:
    folder = in_16_bits("Llama", tmp_path, "BF16")
    leaves = folder.leaves("stored")
    narrow = {path for path, leaf in leaves.items() if isinstance(leaf, Narrow)}
    assert narrow == {path for path, leaf in leaves.items() if leaf.ndim == 2}
    assert all(leaves[path].stored.base is not None and not leaves[path].stored.flags.owndata for path in narrow)
    bits = sum(leaves[path].nbytes for path in narrow)
    assert bits == sum(2 * math.prod(leaf.shape) for leaf in leaves.values() if leaf.ndim == 2)


@pytest.mark.parametrize("weights", WEIGHTS[2:])
def test_fewer_bits_are_near(weights: str, tmp_path: Path) -> None:
    made("Llama", tmp_path)
    folder = open_folder(tmp_path)
    exact, near = folder.leaves("float32"), folder.leaves(weights)
    bound = {"bfloat16": 2**-8, "int8": 1 / 127}[weights]
    for path, leaf in exact.items():
        off = abs(numpy.asarray(near[path]) - leaf).max()
        assert off <= (bound * abs(leaf).max() if leaf.ndim == 2 else 0)
    assert computed(folder, weights).shape == computed(folder, "float32").shape


def test_a_form_that_there_is_not_is_refused(tmp_path: Path) -> None:
    made("Llama", tmp_path)
    with pytest.raises(UserError, match="weights are kept as stored, float32, bfloat16, int8, not as '4bit'"):
        open_folder(tmp_path).leaves("4bit")


@pytest.mark.parametrize("dtype", TYPES)
def test_a_weight_of_16_bits_that_is_not_finite_is_named(dtype: str, tmp_path: Path) -> None:
    in_16_bits("Llama", tmp_path, dtype)
    tensors = written_tensors(tmp_path)
    name = "model.layers.1.mlp.up_proj.weight"
    kind, shape, data = tensors[name]
    tensors[name] = (kind, shape, b"\xff\x7f" + data[2:])
    rewrite(tmp_path, tensors)
    for weights in WEIGHTS:
        with pytest.raises(UserError, match=r"not all finite numbers \(layers.1.feed_forward.W1\)"):
            open_folder(tmp_path).leaves(weights)
