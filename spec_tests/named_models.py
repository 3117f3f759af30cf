"""Small models in the layout of published ones, under the names that the pages use, with what the pages say of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from refllm.models import bert, encoder_decoder, llama
from spec_tests.commands.test_published import PIECES, SIZES, write
from spec_tests.tokenizers.test_published import byte_level

PORT = "import numpy\n\n\ndef logits(ids):\n    return numpy.zeros((*ids.shape, 8), numpy.float32)\n"


def write_models(folder: Path) -> None:
    """The models that the pages name, in folders of their names, and a port that is wrong."""
    sizes = {**SIZES, "context": 64}  # the texts of the pages fit
    bytes_of_text = {"tokenizer.json": json.dumps(byte_level()), "tokenizer_config.json": "{}"}
    write(folder / "models/SmolLM-135M", "llama", llama.Config(**sizes, kv_heads=1, eps=1e-6), bytes_of_text)
    two_stacks = {name: size for name, size in sizes.items() if name != "layers"}
    t5 = encoder_decoder.Config(
        **two_stacks, encoder_layers=1, decoder_layers=1, head_width=3, norm="pre", rms=True, positions="relative",
        biases=False, eps=1e-6, scaled_output=True,
    )  # fmt: skip
    ends = {"decoder_start_token_id": 0, "eos_token_id": 1}
    write(folder / "models/t5-small", "t5", t5, bytes_of_text, **ends)
    encoder = bert.Config(**{**sizes, "vocabulary": len(PIECES)}, outputs=())
    words = {"vocab.txt": "\n".join(PIECES) + "\n"}
    write(folder / "models/all-MiniLM-L6-v2", "bert", encoder, words)
    write(folder / "scratch", "bert", encoder, words)
    write(folder / "models/bert-large-squad", "bert", replace(encoder, outputs=("span",)), words)
    bart = encoder_decoder.Config(
        **two_stacks, encoder_layers=1, decoder_layers=1, head_width=4, positions="learned", activation="gelu_erf",
        embedding_norm=True, tied=True,
    )  # fmt: skip
    write(folder / "models/bart-large-cnn", "bart", bart, bytes_of_text, **ends)
    (folder / "port.py").write_text(PORT)
