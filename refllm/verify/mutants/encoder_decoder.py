"""Mistakes of the encoder-decoder: of reading a source, of its two halves, of its loss, and of translating."""

from __future__ import annotations

from typing import Any

from refllm.backend import Array
from refllm.models import encoder_decoder as model
from refllm.parameters import Tree
from refllm.spec.cross_attention import cross_attention
from refllm.spec.encoder_decoder import (
    bottom,
    decoder,
    denoising_loss,
    encoder,
    encoder_decoder,
    of_layers,
    seq2seq_loss,
    t5_bias,
)
from refllm.spec.generate import translate
from refllm.spec.layers import through
from refllm.spec.transformer_layer import decoder_layer, encoder_layer
from refllm.verify.mutants.bank import Edited, Edits, Patch, edit

OF_ENCODER = (
    "return relative_self_attention(h, p, r, heads=heads, scaled=scaled, causal=False, attention_mask=attention_mask)"
)
OF_DECODER = "return relative_self_attention(h, p, r, heads=heads, scaled=scaled, causal=True, attention_mask=None)"
READ = 'h, decoder_back = decoder(p["token"], p["decoder"], memory, ids=ids, attention_mask=keys, config=config)'
HEAD, DECODED = 'scaled = h / c if config["scaled_output"] else h', "dtoken_encoder, dencoder = encoder_back(dmemory)"
WHOLE = "return with_head(dp, dW, tied=tied)"
THROUGH, LAST_NORM = (
    'y, layers_back = through(x, p["layers"], layer)',
    'h, norm_back = maybe_normalised(y, p, "norm", eps=config["eps"])',
)
EMBEDDED = "e, embedded_back = embedded(token, p, ids=ids, config=config)"
EMBEDDING_NORM = 'x, norm_back = maybe_normalised(e, p, "embedding_norm", eps=config["eps"])'
BIAS_BOTH = "r, bias_back = t5_bias(p, t5_bias_bidirectional, places=ids.shape[-1], config=config)"
BIAS_CAUSAL = "r, bias_back = t5_bias(p, t5_bias_causal, places=ids.shape[-1], config=config)"
ENCODER_LAYER = "return encoder_layer(x, p, r, attention_mask=attention_mask, **of_layers(config))"
DECODER_LAYER = "return decoder_layer(x, p, memory, r, attention_mask=attention_mask, **of_layers(config))"
INPUTS = "ids = shifted(where(targets == ignore, start, targets), start)  # behind an ignored target nothing is counted"
SMOOTHED, NLL = (
    'logits, targets=targets, ignore=ignore, smoothing=smoothing, reduction="mean"',
    "return y, seq2seq_loss_back",
)
CORRUPTED = "p, source=source, attention_mask=attention_mask, ids=shifted(ids, start), config=config"
COUNTED = 'y, cross_entropy_back = cross_entropy(logits, targets=where(counted, ids, -1), ignore=-1, reduction="mean")'
ATTENDING = 'h, attend_back = residual(x, p, 1, "attention", attend, norm=norm, eps=eps)'
READING = 'c, read_back = residual(h, p, 2, "cross_attention", read, norm=norm, eps=eps)'
MISSING = "missing = new_tokens - len(tokens)"
GOES_ON = "while len(tokens) < new_tokens and end not in tokens:"
NEXT = "last = next_logits(p, encoder_decoder, [start, *tokens], **reading, config=config)"
LAST_ALONE = "{0} if p is last or {0} is None else constant({0})"

CROSS = (
    "a, attention_back = attention(q_cut, cut(k, heads), cut(v, heads), causal=False, attention_mask=attention_mask)"
)

_decode = model.decode  # refllm's, not what is planted


def configured(**fields: bool) -> Edits:
    """The embedding of both halves under another configuration."""
    return edit(bottom, EMBEDDED, EMBEDDED.replace("config=config", f"config=config | {fields}"))


def inputs(new: str) -> Edits:
    """Another input of the decoder, made of the targets, of which those that are ignored say nothing."""
    known = "where(targets == ignore, start, targets)"
    return edit(seq2seq_loss, INPUTS, f"ids = {new.format(known)}") + edit(
        denoising_loss, CORRUPTED, CORRUPTED.replace("shifted(ids, start)", new.format("ids"))
    )


def loss(new: str) -> Edits:
    return edit(seq2seq_loss, NLL, f"return {new}, seq2seq_loss_back")


def counting(new: str) -> Edits:
    return edit(denoising_loss, COUNTED, COUNTED.replace("counted, ids", f"{new}, ids"))


def biased_reading(bias: str, *, from_the_start: bool = False) -> Edits:
    """Cross-attention with a bias by distance too, from the decoder's table; the queries are the last of the places of
    the source, or the first."""
    near = "T, S = x.shape[-2], memory.shape[-2]\nN = max(T, S)\n" if from_the_start else ""
    sizes = "queries=N, keys=N" if from_the_start else "queries=x.shape[-2], keys=memory.shape[-2]"
    part = "[:, N - T : N + S - 1]" if from_the_start else ""
    return edit(
        cross_attention, CROSS,
        'E = of_call("decoder", "p", {}).get("relative")\nfarthest = of_call("decoder", "config", {}).get("farthest")\n'
        f"{near}r = None if E is None else {bias}(E, {sizes}, farthest=farthest)[0]{part}\n"
        "a, attention_back = maybe_biased(q_cut, cut(k, heads), cut(v, heads), r, causal=False, "
        "attention_mask=attention_mask)",
    )  # fmt: skip


def _mask_forgotten(p: Tree, memory: Array, *, cache: Any, memory_mask: Array | None, **how: Any) -> Any:
    return _decode(p, memory, cache=cache, memory_mask=None if cache is not None else memory_mask, **how)


# fmt: off
MUTANTS = [
    Edited("ENCDEC/decoder-not-causal", "a decoder whose self-attention is not causal",
           edit(decoder_layer, OF_DECODER, OF_DECODER.replace("causal=True", "causal=False"))),
    Edited("ENCDEC/encoder-causal", "an encoder with a causal mask",
           edit(encoder_layer, OF_ENCODER, OF_ENCODER.replace("causal=False", "causal=True"))),
    Edited("ENCDEC/source-padding-attended", "an encoder that attends to padding",
           edit(encoder_layer, OF_ENCODER, OF_ENCODER.replace("=attention_mask", "=None"))),
    Edited("ENCDEC/memory-padding-read", "a decoder that reads the padding of the source",
           edit(encoder_decoder, READ, READ.replace("=keys", "=None"))),
    Edited("ENCDEC/last-encoder-layer-skipped", "an encoder without its last layer",
           edit(encoder, THROUGH, THROUGH.replace('p["layers"]', 'p["layers"][:-1]'))),
    Edited("ENCDEC/embedding-unscaled", "an encoder-decoder whose embedding is not multiplied by √C",
           configured(scaled_embedding=False)),
    Edited("ENCDEC/embedding-scaled", "an encoder-decoder whose embedding is multiplied by √C where it should not be",
           configured(scaled_embedding=True)),
    Edited("ENCDEC/no-embedding-norm", "BART without the norm after its embedding",
           edit(bottom, EMBEDDING_NORM, "x = e")),
    Edited("ENCDEC/no-encoder-norm", "a pre-norm encoder without its last norm", edit(encoder, LAST_NORM, "h = y")),
    Edited("ENCDEC/no-decoder-norm", "a pre-norm decoder without its last norm", edit(decoder, LAST_NORM, "h = y")),
    Edited("ENCDEC/cross-attention-first", "a decoder that reads the source before its own text",
           edit(decoder_layer, ATTENDING, "o = residual(x, p, 2, \"cross_attention\", read, norm=norm, eps=eps)[0]\n"
                "h = residual(o, p, 1, \"attention\", attend, norm=norm, eps=eps)[0]", READING, "c = h")),
    Edited("ENCDEC/cross-attention-alone", "a decoder without the residual around cross-attention",
           edit(decoder_layer, READING, "n = normalised(h, p[\"norm2\"], eps=eps)[0] if norm == \"pre\" else h\n"
                "a = read(n, p[\"cross_attention\"])[0]\n"
                "c = a if norm == \"pre\" else normalised(a, p[\"norm2\"], eps=eps)[0]")),
    Edited("ENCDEC/memory-normed", "a pre-norm decoder that norms the memory as it norms its queries",
           edit(decoder_layer, ATTENDING,
                "memory = normalised(memory, p[\"norm2\"], eps=eps)[0] if norm == \"pre\" else "
                f"memory\n{ATTENDING}")),
    Edited("ENCDEC/memory-of-embedding", "a decoder that reads the embedding of the source, not what the encoder made",
           edit(encoder, THROUGH, "y = x")),
    Edited("ENCDEC/no-last-norms", "a pre-norm encoder-decoder without the last norm of both halves",
           edit(encoder, LAST_NORM, "h = y") + edit(decoder, LAST_NORM, "h = y")),
    Edited("ENCDEC/positions-from-one", "an encoder-decoder whose positions count from 1",
           edit(bottom, EMBEDDED, "later = concatenate([ids[:, :1], ids], axis=1)  # the first is cut off again\n"
                "e = embedded(token, p, ids=later, config=config)[0][:, 1:]")),
    Edited("ENCDEC/t5-attention-scaled", "T5 with attention divided by √d_k",
           edit(of_layers, 'scaled = config["positions"] != "relative"', "scaled = True")),
    Edited("ENCDEC/t5-head-unscaled", "T5 without the 1/√C before its tied head",
           edit(encoder_decoder, HEAD, "scaled = h")),
    Edited("ENCDEC/t5-head-scaled", "an encoder-decoder with T5's 1/√C before a head that has none",
           edit(encoder_decoder, HEAD, "scaled = h / c")),
    Edited("ENCDEC/t5-no-bias", "T5 without the bias by distance",
           edit(t5_bias, "return r, t5_bias_back", "return 0 * r, t5_bias_back")),
    Edited("ENCDEC/t5-decoder-bidirectional", "T5's decoder with the buckets of its encoder",
           edit(decoder, BIAS_CAUSAL, BIAS_BOTH)),
    Edited("ENCDEC/t5-encoder-causal", "T5's encoder with the buckets of its decoder",
           edit(encoder, BIAS_BOTH, BIAS_CAUSAL)),
    Edited("ENCDEC/t5-bias-in-cross-attention", "T5 whose bias by distance is in cross-attention too",
           biased_reading("t5_bias_causal", from_the_start=True)),
    Edited("ENCDEC/t5-bias-in-cross-attention-from-the-end",
           "T5 whose bias by distance is in cross-attention too, the queries being the last places of the source",
           biased_reading("t5_bias_causal")),
    Edited("ENCDEC/t5-bias-in-cross-attention-both-ways",
           "T5 whose bias by distance, in both directions, is in cross-attention too",
           biased_reading("t5_bias_bidirectional", from_the_start=True)),
    Edited("ENCDEC/back-bias-of-first-layer", "T5 whose bias by distance has the gradient of one layer alone",
           edit(encoder, BIAS_BOTH, f'{BIAS_BOTH}\nlast = p["layers"][-1]',
                ENCODER_LAYER, ENCODER_LAYER.replace("p, r,", f"p, {LAST_ALONE.format('r')},"))
           + edit(decoder, BIAS_CAUSAL, f'{BIAS_CAUSAL}\nlast = p["layers"][-1]',
                  DECODER_LAYER, DECODER_LAYER.replace("memory, r,", f"memory, {LAST_ALONE.format('r')},"))),
    Edited("ENCDEC/back-memory-last-layer", "a memory with the gradient of the last decoder layer alone",
           edit(decoder, BIAS_CAUSAL, f'{BIAS_CAUSAL}\nlast = p["layers"][-1]',
                DECODER_LAYER, DECODER_LAYER.replace("memory,", f"{LAST_ALONE.format('memory')},"))),
    Edited("ENCDEC/back-memory-dropped", "an encoder that gets no gradient from the decoder",
           edit(encoder_decoder, DECODED, DECODED.replace("(dmemory)", "(0 * dmemory)"))),
    Edited("ENCDEC/back-tied-head-dropped", "an encoder-decoder whose tied head gives the embedding no gradient",
           edit(encoder_decoder, WHOLE, WHOLE.replace("dW,", "0 * dW if tied else dW,"))),
    Edited("ENCDEC/targets-not-shifted", "a decoder that reads the targets that it is to predict",
           inputs("{}")),
    Edited("ENCDEC/targets-shifted-twice", "a decoder whose input is shifted by two places",
           inputs("shifted(shifted({}, start), start)")),
    Edited("ENCDEC/start-is-zero", "a decoder that begins with token 0 instead of the start token",
           inputs("shifted({}, 0)")),
    Edited("ENCDEC/smoothing-on-padding", "label smoothing that ignored targets have a share of too",
           edit(seq2seq_loss, NLL, "every = where(targets == ignore, -mean(log_softmax(logits)[0])[..., 0], 0)\n"
                "return y + smoothing * total(every) / (targets != ignore).sum(), seq2seq_loss_back")),
    Edited("ENCDEC/smoothing-ignored", "a loss without label smoothing",
           edit(seq2seq_loss, SMOOTHED, SMOOTHED.replace("=smoothing", "=0"))),
    Edited("ENCDEC/loss-over-all", "the loss of a target averaged over ignored places too",
           loss("y * (targets != ignore).mean()")),
    Edited("ENCDEC/loss-over-texts", "the loss of a target summed and divided by the texts",
           loss("y * ((targets != ignore).sum() / len(targets))")),
    Edited("DAE/counts-all", "denoising that counts every place, corrupted or not",
           counting("everywhere(counted.shape)")),
    Edited("DAE/counts-the-others", "denoising that counts the places that were not corrupted", counting("~counted")),
    Patch("GEN/memory-mask-forgotten", model.decode, "translating without the mask of the source", _mask_forgotten,
          "https://github.com/speechbrain/speechbrain/issues/1107"),
    Edited("ENCDEC/memory-by-layer", "a decoder whose layers each read the encoder's layer of the same number",
           edit(through, "x, layer_back = f(x, layer)", "x, layer_back = f(x, layer)\nx = noted(x)")
           + edit(decoder, DECODER_LAYER, DECODER_LAYER.replace("memory,", 'of_same_number("encoder", memory),')),
           "https://github.com/jadore801120/attention-is-all-you-need-pytorch/issues/27"),
    Edited("GEN/end-ignored", "writing that goes on behind the end token",
           edit(translate, GOES_ON, "while len(tokens) < new_tokens:")),
    Edited("GEN/end-not-given", "writing whose end token is not given: no token and no logits stand in its place",
           edit(translate, MISSING, f"if end in tokens:\n    tokens, seen = tokens[:-1], seen[:-1]\n{MISSING}")),
    Edited("GEN/starts-with-zero", "translating that begins with token 0 instead of the start token",
           edit(translate, NEXT, NEXT.replace("[start,", "[0,"))),
]
