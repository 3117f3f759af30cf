"""The published configurations of the models, by name and size: what a paper or its code says, nothing chosen here."""

from __future__ import annotations

from typing import Any

from refllm.models import bert as bert_file
from refllm.models import encoder_decoder, gpt, llama

GPT2_SIZES = {"small": (12, 12, 768), "medium": (24, 16, 1024), "large": (36, 20, 1280), "xl": (48, 25, 1600)}
BERT_SIZES = {"base": (12, 12, 768), "large": (24, 16, 1024)}
LLAMA2_SIZES: dict[str, dict[str, Any]] = {
    "7b": {"layers": 32, "heads": 32, "width": 4096, "hidden": 11008},
    "13b": {"layers": 40, "heads": 40, "width": 5120, "hidden": 13824},
    "70b": {"layers": 80, "heads": 64, "kv_heads": 8, "width": 8192, "hidden": 28672},
}
VASWANI_SIZES = {"base": (8, 512, 2048, 0.1), "big": (16, 1024, 4096, 0.3)}
BART_SIZES = {"base": (6, 12, 768), "large": (12, 16, 1024)}
T5_SIZES = {
    "small": (6, 8, 64, 512, 2048),
    "base": (12, 12, 64, 768, 3072),
    "large": (24, 16, 64, 1024, 4096),
    "3b": (24, 32, 128, 1024, 16384),
}
T5_1_1_SIZES = {
    "small": (8, 6, 64, 512, 1024),
    "base": (12, 12, 64, 768, 2048),
    "large": (24, 16, 64, 1024, 2816),
    "xl": (24, 32, 64, 2048, 5120),
}


def gpt2(size: str) -> gpt.Config:
    """The published configurations of GPT-2; "small" has 124 439 808 parameters.

    >>> config = gpt2("small")
    >>> config.layers, config.heads, config.width, config.hidden // config.width
    (12, 12, 768, 4)
    """
    layers, heads, width = GPT2_SIZES[size]
    return gpt.Config(vocabulary=50257, context=1024, layers=layers, heads=heads, width=width, hidden=4 * width)


def bert(size: str, *, outputs: tuple[str, ...] = ()) -> bert_file.Config:
    """The published configurations of BERT; without heads "base" has 109 482 240 parameters and "large" 335 141 888.

    >>> config = bert("base")
    >>> config.layers, config.heads, config.width, config.vocabulary
    (12, 12, 768, 30522)
    """
    layers, heads, width = BERT_SIZES[size]
    return bert_file.Config(
        vocabulary=30522, context=512, layers=layers, heads=heads, width=width, hidden=4 * width, dropout=0.1,
        outputs=outputs,
    )  # fmt: skip


def llama2(size: str) -> llama.Config:
    """The published configurations of Llama 2; "7b" has 6 738 415 616 parameters.

    >>> config = llama2("7b")
    >>> config.layers, config.heads, config.width, config.vocabulary
    (32, 32, 4096, 32000)
    """
    return llama.Config(vocabulary=32000, context=4096, **LLAMA2_SIZES[size])


def tinyllama() -> llama.Config:
    """TinyLlama 1.1B (Zhang et al. 2024, arXiv:2401.02385 sec. 2.2), with 1 100 048 384 parameters.

    >>> config = tinyllama()
    >>> config.layers, config.heads, config.kv_heads, config.width
    (22, 32, 4, 2048)
    """
    return llama.Config(vocabulary=32000, context=2048, layers=22, heads=32, kv_heads=4, width=2048, hidden=5632)


def vaswani(size: str, *, vocabulary: int = 37000) -> encoder_decoder.Config:
    """The Transformer of 2017, "base" or "big" (its table 3), with its vocabulary of English and German.

    >>> config = vaswani("base")
    >>> config.encoder_layers, config.heads, config.width, config.hidden
    (6, 8, 512, 2048)
    """
    heads, width, hidden, dropout = VASWANI_SIZES[size]
    return encoder_decoder.Config(
        vocabulary=vocabulary, context=512, encoder_layers=6, decoder_layers=6, heads=heads, head_width=width // heads,
        width=width, hidden=hidden, scaled_embedding=True, dropout=dropout,
    )  # fmt: skip


def bart(size: str) -> encoder_decoder.Config:
    """BART, "base" or "large"; "base" has 139 417 344 parameters, 139 420 416 with the unused rows of positions.

    >>> config = bart("base")
    >>> config.encoder_layers, config.decoder_layers, config.width
    (6, 6, 768)
    """
    layers, heads, width = BART_SIZES[size]
    return encoder_decoder.Config(
        vocabulary=50265, context=1024, encoder_layers=layers, decoder_layers=layers, heads=heads,
        head_width=width // heads, width=width, hidden=4 * width, positions="learned", activation="gelu_erf",
        embedding_norm=True, dropout=0.1,
    )  # fmt: skip


def t5(size: str) -> encoder_decoder.Config:
    """T5 of the paper (version 1.0), "small" to "3b"; "small" has 60 506 624 parameters.

    >>> config = t5("small")
    >>> config.encoder_layers, config.heads * config.head_width, config.gated
    (6, 512, False)
    """
    return _t5(T5_SIZES[size], scaled_output=True)


def t5_1_1(size: str) -> encoder_decoder.Config:
    """Version 1.1 of T5: a gate in the feed-forward layers, an output layer of its own; "small" has 76 961 152.

    >>> t5_1_1("small").gated, t5_1_1("small").tied
    (True, False)
    """
    return _t5(T5_1_1_SIZES[size], activation="gelu_tanh", gated=True, tied=False)


def _t5(sizes: tuple[int, int, int, int, int], **form: Any) -> encoder_decoder.Config:
    layers, heads, head_width, width, hidden = sizes
    return encoder_decoder.Config(
        vocabulary=32128, context=512, encoder_layers=layers, decoder_layers=layers, heads=heads,
        head_width=head_width, width=width, hidden=hidden, norm="pre", rms=True, positions="relative", biases=False,
        dropout=0.1, eps=1e-6, **form,
    )  # fmt: skip
