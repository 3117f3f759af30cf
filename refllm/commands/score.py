"""refllm score: how probable a model finds a text."""

from __future__ import annotations

import argparse
import json
import math
import sys

from refllm.backend import allow_tf32, device_namespace, to_device, to_host
from refllm.commands.choices import add_weights_argument
from refllm.commands.generate import LESS_MEMORY, add_run_argument, chosen_run
from refllm.data.batching import windows
from refllm.data.corpus import read_text
from refllm.errors import UserError
from refllm.metrics import bits_per_character, bits_per_token, perplexity
from refllm.ops.cross_entropy import cross_entropy
from refllm.tokenizers import begun, gives_back, unknown_share
from refllm.tokenizers.pieces import completed, piece_of
from refllm.trained import load_language_model

DESCRIPTION = """The chain-rule probability and perplexity of a text under the model of a run, given its first token.

example: refllm score runs/001 --text "The assert statement raises an exception." --each"""

__all__ = ["DESCRIPTION", "LESS_MEMORY", "add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_argument(parser)
    add_weights_argument(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text", help="the text itself")
    source.add_argument("--file", help="a UTF-8 file that holds it")
    parser.add_argument(
        "--each",
        action="store_true",
        help="one line a token: its probability and the token (a byte that is no whole character as <E9>)",
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON")


def run(options: argparse.Namespace) -> int:
    device_namespace(options.device)
    allow_tf32(options.tf32, options.device)
    text = options.text if options.file is None else read_text([options.file]).text
    trained = load_language_model(chosen_run(options.run_directory), options.device, options.weights)
    p, model, config, tokenizer = trained.parameters, trained.model, trained.config, trained.tokenizer
    tokens = begun(tokenizer, text)
    if len(tokens) < 2:
        raise UserError("the text must have at least two tokens: the first is given, the others are predicted")
    context = min(config.context, len(tokens) - 1)
    log_p = []
    for window, wanted in zip(*windows(tokens, context=context, stride=max(1, context // 2)), strict=True):
        ids, targets = to_device(window[None], options.device), to_device(wanted[None], options.device)
        logits, _ = model.forward(p, ids=ids, config=config, dropout_mask=None, cache=None)
        nll, _ = cross_entropy(logits, targets=targets, ignore=-1, reduction="none")
        log_p += [-float(x) for x in to_host(nll)[0][wanted >= 0]]
    total = math.fsum(log_p)
    result = {"tokens": len(log_p), "log_probability": total, "perplexity": perplexity(-total, len(log_p))}
    if gives_back(tokenizer, tokens, text):
        given = completed(tokens[:1].tolist(), tokenizer)  # of a character that goes on, the end is predicted
        result["bits_per_character"] = bits_per_character(-total, len(text) - len(given))
        bits = f"{result['bits_per_character']:.4f} bits per character"
    else:
        result["bits_per_token"] = bits_per_token(-total, len(log_p))
        result["unknown"] = unknown_share(tokenizer, tokens[1:])
        bits = f"{result['bits_per_token']:.4f} bits per token, {100 * result['unknown']:.1f} % of them unknown words"
    pieces = [piece_of(token, tokenizer) for token in tokens[1:].tolist()]
    if options.json:
        each = [{"token": piece, "log_probability": x} for piece, x in zip(pieces, log_p, strict=True)]
        print(json.dumps({**result, "each": each} if options.each else result))
        return 0
    if options.each:
        for piece, x in zip(pieces, log_p, strict=True):
            sys.stdout.write(f"{math.exp(x):10.6f}  {piece!r}\n")
    print(
        f"log P = {total:.4f} nats over {len(log_p)} tokens after the first; perplexity {result['perplexity']:.4f}; "
        f"{bits}"
    )
    return 0
