"""The encoder-decoder against transformers' T5 and BART and PyTorch's own Transformer: loss and every gradient on the
same random weights; and beam search against transformers' generate."""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType, SimpleNamespace
from typing import Any

import numpy as np

from refllm.generation.beam import beam_search
from refllm.generation.writer import SequenceWriter
from refllm.models import encoder_decoder
from refllm.objectives.seq2seq import seq2seq_loss, shifted_right
from refllm.parameters import map_leaves, named_leaves

LIMITS = {"float64": 1e-10, "float32": 1e-5}  # of the largest entry of each tensor
IGNORE, START, END = -1, 2, 1
SIZES: dict[str, Any] = {
    "vocabulary": 61, "context": 24, "encoder_layers": 2, "decoder_layers": 3, "heads": 4, "head_width": 8, "width": 32,
    "hidden": 48,
}  # fmt: skip
T5: dict[str, Any] = {**SIZES, "norm": "pre", "rms": True, "positions": "relative", "biases": False, "eps": 1e-6}
CONFIGURATIONS = {
    "Transformer of 2017": encoder_decoder.Config(**SIZES, scaled_embedding=True),
    "BART": encoder_decoder.Config(**SIZES, positions="learned", activation="gelu_erf", embedding_norm=True),
    "T5 1.0": encoder_decoder.Config(**T5, scaled_output=True),
    "T5 1.1": encoder_decoder.Config(**T5, activation="gelu_tanh", gated=True, tied=False),
    "T5 1.0, odd sizes": encoder_decoder.Config(
        **{**T5, "vocabulary": 7, "heads": 1, "head_width": 6, "width": 10, "encoder_layers": 1, "decoder_layers": 1},
        scaled_output=True, buckets=8, farthest=11,
    ),
}  # fmt: skip
SMOOTHING = {"BART": 0.1}  # the others have none


def rows(seed: int) -> list[dict[str, Any]]:
    """Worst differences by configuration and dtype, and of the scores and tokens of beam search."""
    found = []
    for name, config in CONFIGURATIONS.items():
        for dtype, limit in LIMITS.items():
            row = compare(name, config, dtype, seed)
            agrees = row["loss"] <= limit and row["gradient"] <= limit
            found.append({"configuration": name, "dtype": dtype, "limit": limit, "agrees": agrees, **row})
    for name in ("BART", "T5 1.0"):
        for length_penalty in (0.0, 1.0):
            row = compare_beams(CONFIGURATIONS[name], seed, length_penalty=length_penalty)
            agrees = row["loss"] <= LIMITS["float32"] and row["gradient"] == 0
            about = f"{name}, 4 beams, length^{length_penalty:g}"
            found.append(
                {"configuration": about, "dtype": "float32", "limit": LIMITS["float32"], "agrees": agrees, **row}
            )
    return found


def compare(name: str, config: encoder_decoder.Config, dtype: str, seed: int) -> dict[str, Any]:
    """Loss and gradient of one batch with padding on both sides, a source of 11 tokens and a target of 9."""
    import torch

    rng = np.random.default_rng(seed)
    p = random_parameters(config, rng, dtype)
    source, targets = rng.integers(0, config.vocabulary, (3, 11)), rng.integers(0, config.vocabulary, (3, 9))
    attention_mask = np.arange(11) < np.array([11, 7, 1])[:, None]
    targets[1, 5:] = targets[2, 1:] = IGNORE
    inputs = shifted_right(targets, start=START, ignore=IGNORE)
    count, smoothing = int((targets != IGNORE).sum()), SMOOTHING.get(name, 0.0)

    loss, back = seq2seq_loss(
        p, model=encoder_decoder, source=source, attention_mask=attention_mask, inputs=inputs, targets=targets,
        ignore=IGNORE, smoothing=smoothing, config=config, dropout_mask=None,
    )  # fmt: skip
    ours = dict(named_leaves(back(np.asarray(1 / count, dtype))))

    model = twin(config, p)
    logits = model.module(
        input_ids=torch.tensor(source), attention_mask=torch.tensor(attention_mask).long(),
        decoder_input_ids=torch.tensor(inputs), use_cache=False,
    ).logits  # fmt: skip
    reference = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(targets).flatten(), ignore_index=IGNORE, label_smoothing=smoothing
    )
    reference.backward()
    theirs = model.gradients()
    gradient, tensor = max((_difference(ours[path], theirs[path]), path) for path in ours)
    return {
        "loss": abs(float(loss) / count - reference.item()) / abs(reference.item()),
        "gradient": gradient,
        "tensor": tensor,
    }


def compare_beams(config: encoder_decoder.Config, seed: int, *, length_penalty: float) -> dict[str, Any]:
    """All four texts of beam search for three sources: "loss" is the worst difference of a score, "gradient" the share
    of texts that are not the same. transformers rounds its scores to float32; "never" is its exact end of the search.
    It searches without its cache, which fails where the two stacks have different numbers of layers."""
    import torch

    rng = np.random.default_rng(seed)
    p = random_parameters(config, rng, "float32")
    source, attention_mask = rng.integers(3, config.vocabulary, (3, 11)), np.arange(11) < np.array([11, 7, 1])[:, None]
    beams, longest = 4, 12
    theirs = twin(config, p).module.generate(
        input_ids=torch.tensor(source), attention_mask=torch.tensor(attention_mask).long(), num_beams=beams,
        num_return_sequences=beams, max_new_tokens=longest, length_penalty=length_penalty, early_stopping="never",
        do_sample=False, use_cache=False, return_dict_in_generate=True, output_scores=True,
    )  # fmt: skip
    writer = SequenceWriter(
        p, model=encoder_decoder, config=config, source=source, attention_mask=attention_mask, room=longest
    )
    start = np.full((3, 1), START)
    ours = [
        text
        for texts in beam_search(
            writer, ids=start, new_tokens=longest, end=END, beams=beams, length_penalty=length_penalty
        )
        for text in texts
    ]
    different = [
        tokens[1:][: len(text.tokens)] != list(text.tokens)
        for tokens, text in zip(theirs.sequences.tolist(), ours, strict=True)
    ]
    scores = theirs.sequences_scores.double().numpy()
    return {
        "loss": float(np.abs((np.array([text.score for text in ours]) - scores) / scores).max()),
        "gradient": float(np.mean(different)),
        "tensor": "tokens",
    }


def random_parameters(config: encoder_decoder.Config, rng: Any, dtype: str) -> Any:
    fresh = encoder_decoder.initial(config, rng)
    return map_leaves(lambda a: (a + 0.05 * rng.standard_normal(a.shape)).astype(dtype), fresh)


def _difference(ours: Any, theirs: Any) -> float:
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))


Names = dict[str, list[str]]


class Twin:
    """Another framework's model with refllm's parameters: `names` says which of its tensors a parameter is cut into, by
    name, and "name[2:]" is a part of the rows of one."""

    def __init__(self, module: Any, names: Names, p: Any) -> None:
        import torch

        dtype = next(leaf for _, leaf in named_leaves(p)).dtype
        self.module, self.names = module.to(getattr(torch, dtype.name)).eval(), names
        self.tensors = dict(self.module.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for path, leaf in named_leaves(p):
                pieces = [self._rows(name, self.tensors) for name in names[path]]
                widths = [
                    piece.shape[0] if _transposed(path) or piece.ndim == 1 else piece.shape[1] for piece in pieces
                ]
                for piece, part in zip(pieces, np.split(leaf, np.cumsum(widths)[:-1], axis=-1), strict=True):
                    piece.copy_(torch.tensor(part.T if _transposed(path) else part))

    def gradients(self) -> dict[str, Any]:
        slopes = {name: tensor.grad for name, tensor in self.tensors.items()}
        found = {}
        for path, pieces in self.names.items():
            parts = [self._rows(name, slopes).numpy() for name in pieces]
            found[path] = np.concatenate([part.T if _transposed(path) else part for part in parts], axis=-1)
        return found

    @staticmethod
    def _rows(name: str, tensors: dict[str, Any]) -> Any:
        name, _, bounds = name.rstrip("]").partition("[")
        start, _, stop = bounds.partition(":")
        return tensors[name][int(start or 0) : int(stop) if stop else None]


def _transposed(path: str) -> bool:
    """PyTorch's linear layers keep (out, in)."""
    return path.rpartition(".")[2].startswith("W") or path == "head"


def twin(config: encoder_decoder.Config, p: Any) -> Twin:
    """The model of the other framework that the configuration describes."""
    if config.positions == "relative":
        return _t5(config, p)
    return _bart(config, p) if config.positions == "learned" else _transformer(config, p)


def _layers(config: encoder_decoder.Config) -> Iterator[tuple[str, int]]:
    yield from (("encoder", i) for i in range(config.encoder_layers))
    yield from (("decoder", i) for i in range(config.decoder_layers))


def _t5(config: encoder_decoder.Config, p: Any) -> Twin:
    import torch
    from transformers import T5Config, T5ForConditionalGeneration
    from transformers.models.t5.modeling_t5 import T5LayerNorm

    names: Names = {"token": ["shared.weight"]} | ({} if config.tied else {"head": ["lm_head.weight"]})
    for stack, i in _layers(config):
        ours, theirs = f"{stack}.layers.{i}", f"{stack}.block.{i}.layer"
        attention = {"attention": "0.SelfAttention", "cross_attention": "1.EncDecAttention"}
        last = 2 if stack == "decoder" else 1
        names[f"{ours}.attention.Wqkv"] = [f"{theirs}.{attention['attention']}.{m}.weight" for m in "qkv"]
        names[f"{ours}.attention.Wo"] = [f"{theirs}.{attention['attention']}.o.weight"]
        if stack == "decoder":
            names[f"{ours}.cross_attention.Wq"] = [f"{theirs}.{attention['cross_attention']}.q.weight"]
            names[f"{ours}.cross_attention.Wkv"] = [f"{theirs}.{attention['cross_attention']}.{m}.weight" for m in "kv"]
            names[f"{ours}.cross_attention.Wo"] = [f"{theirs}.{attention['cross_attention']}.o.weight"]
        maps = {"Wg": "wi_0", "W1": "wi_1", "W2": "wo"} if config.gated else {"W1": "wi", "W2": "wo"}
        for one, other in maps.items():
            names[f"{ours}.feed_forward.{one}"] = [f"{theirs}.{last}.DenseReluDense.{other}.weight"]
        for sublayer in range(last + 1):
            names[f"{ours}.norm{sublayer + 1}.g"] = [f"{theirs}.{sublayer}.layer_norm.weight"]
    for stack in ("encoder", "decoder"):
        names[f"{stack}.relative"] = [f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        names[f"{stack}.norm.g"] = [f"{stack}.final_layer_norm.weight"]
    module = T5ForConditionalGeneration(
        T5Config(
            vocab_size=config.vocabulary, d_model=config.width, d_kv=config.head_width, d_ff=config.hidden,
            num_layers=config.encoder_layers, num_decoder_layers=config.decoder_layers, num_heads=config.heads,
            relative_attention_num_buckets=config.buckets, relative_attention_max_distance=config.farthest,
            dropout_rate=0.0, layer_norm_epsilon=config.eps, tie_word_embeddings=config.tied,
            feed_forward_proj="gated-gelu" if config.gated else "relu", pad_token_id=0, eos_token_id=END,
            decoder_start_token_id=START, attn_implementation="eager",
        )
    )  # fmt: skip
    if not config.tied:  # transformers ties the output layer of version 1.1 too
        module.lm_head.weight = torch.nn.Parameter(module.lm_head.weight.detach().clone())
    for norm in module.modules():
        if isinstance(norm, T5LayerNorm):  # whose mean square is of float32, also in a model of float64
            norm.forward = MethodType(_rms_norm, norm)
    return Twin(module, names, p)


def _rms_norm(self: Any, x: Any) -> Any:
    return self.weight * x * (x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()


def _bart(config: encoder_decoder.Config, p: Any) -> Twin:
    from transformers import BartConfig, BartForConditionalGeneration

    names: Names = {"token": ["model.shared.weight"]}
    for stack, i in _layers(config):
        ours, theirs = f"{stack}.layers.{i}", f"model.{stack}.layers.{i}"
        norms = ["self_attn_layer_norm", "final_layer_norm"]
        if stack == "decoder":
            norms.insert(1, "encoder_attn_layer_norm")
        for kind, suffix in (("W", "weight"), ("b", "bias")):
            names[f"{ours}.attention.{kind}qkv"] = [f"{theirs}.self_attn.{m}_proj.{suffix}" for m in "qkv"]
            names[f"{ours}.attention.{kind}o"] = [f"{theirs}.self_attn.out_proj.{suffix}"]
            if stack == "decoder":
                names[f"{ours}.cross_attention.{kind}q"] = [f"{theirs}.encoder_attn.q_proj.{suffix}"]
                names[f"{ours}.cross_attention.{kind}kv"] = [f"{theirs}.encoder_attn.{m}_proj.{suffix}" for m in "kv"]
                names[f"{ours}.cross_attention.{kind}o"] = [f"{theirs}.encoder_attn.out_proj.{suffix}"]
            for n in (1, 2):
                names[f"{ours}.feed_forward.{kind}{n}"] = [f"{theirs}.fc{n}.{suffix}"]
        for n, norm in enumerate(norms, start=1):
            names |= {f"{ours}.norm{n}.g": [f"{theirs}.{norm}.weight"], f"{ours}.norm{n}.b": [f"{theirs}.{norm}.bias"]}
    for stack in ("encoder", "decoder"):
        names[f"{stack}.position"] = [
            f"model.{stack}.embed_positions.weight[2:]"
        ]  # no position uses the first two rows
        names[f"{stack}.embedding_norm.g"] = [f"model.{stack}.layernorm_embedding.weight"]
        names[f"{stack}.embedding_norm.b"] = [f"model.{stack}.layernorm_embedding.bias"]
    module = BartForConditionalGeneration(
        BartConfig(
            vocab_size=config.vocabulary, d_model=config.width, max_position_embeddings=config.context,
            encoder_layers=config.encoder_layers, decoder_layers=config.decoder_layers,
            encoder_attention_heads=config.heads, decoder_attention_heads=config.heads,
            encoder_ffn_dim=config.hidden, decoder_ffn_dim=config.hidden, dropout=0.0, activation_function="gelu",
            pad_token_id=0, bos_token_id=3, eos_token_id=END, decoder_start_token_id=START, forced_eos_token_id=None,
            attn_implementation="eager",
        )
    )  # fmt: skip
    return Twin(module, names, p)


def _transformer(config: encoder_decoder.Config, p: Any) -> Twin:
    """torch.nn's encoder and decoder layers, of the order of 2017, with the embedding and the head around them."""
    import torch

    from refllm.ops.position import sinusoidal

    how = {"dropout": 0.0, "batch_first": True, "layer_norm_eps": config.eps}

    class Transformer(torch.nn.Module):  # type: ignore[misc]  # torch need not be installed
        def __init__(self) -> None:
            super().__init__()
            C, H, F = config.width, config.heads, config.hidden
            self.token = torch.nn.Embedding(config.vocabulary, C)
            self.encoder = torch.nn.ModuleList(
                torch.nn.TransformerEncoderLayer(C, H, F, **how) for _ in range(config.encoder_layers)
            )
            self.decoder = torch.nn.ModuleList(
                torch.nn.TransformerDecoderLayer(C, H, F, **how) for _ in range(config.decoder_layers)
            )
            table = sinusoidal(np.arange(config.context, dtype=np.float64), width=C)[0]
            self.register_buffer("table", torch.tensor(table))

        def embed(self, ids: Any) -> Any:
            return self.token(ids) * config.width**0.5 + self.table[: ids.shape[1]]

        def forward(self, input_ids: Any, attention_mask: Any, decoder_input_ids: Any, **_: Any) -> Any:
            memory, x, hidden = self.embed(input_ids), self.embed(decoder_input_ids), attention_mask == 0
            for layer in self.encoder:
                memory = layer(memory, src_key_padding_mask=hidden)
            later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
            for layer in self.decoder:
                x = layer(x, memory, tgt_mask=later, memory_key_padding_mask=hidden)
            return SimpleNamespace(logits=x @ self.token.weight.T)

    names: Names = {"token": ["token.weight"]}
    for stack, i in _layers(config):
        ours, theirs = f"{stack}.layers.{i}", f"{stack}.{i}"
        for kind, suffix in (("W", "weight"), ("b", "bias")):
            names[f"{ours}.attention.{kind}qkv"] = [f"{theirs}.self_attn.in_proj_{suffix}"]
            names[f"{ours}.attention.{kind}o"] = [f"{theirs}.self_attn.out_proj.{suffix}"]
            for n in (1, 2):
                names[f"{ours}.feed_forward.{kind}{n}"] = [f"{theirs}.linear{n}.{suffix}"]
        for n in range(1, 4 if stack == "decoder" else 3):
            names |= {
                f"{ours}.norm{n}.g": [f"{theirs}.norm{n}.weight"],
                f"{ours}.norm{n}.b": [f"{theirs}.norm{n}.bias"],
            }

        if stack == "decoder":
            C, theirs = config.width, f"{theirs}.multihead_attn"
            for kind, suffix in (("W", "weight"), ("b", "bias")):
                names[f"{ours}.cross_attention.{kind}q"] = [f"{theirs}.in_proj_{suffix}[:{C}]"]
                names[f"{ours}.cross_attention.{kind}kv"] = [f"{theirs}.in_proj_{suffix}[{C}:]"]
                names[f"{ours}.cross_attention.{kind}o"] = [f"{theirs}.out_proj.{suffix}"]
    return Twin(Transformer(), names, p)
