"""refllm pretrain: the run that `fit --from` starts from; `refllm train` with one of two models."""

from __future__ import annotations

import argparse

from refllm.commands import train
from refllm.errors import UserError

DESCRIPTION = """Pre-train BERT (masked words and sentence pairs), which classify and answer start from, or an
encoder-decoder (text infilling), which translate and summarise start from. The same as refllm train with that --model.

example: refllm pretrain --model encoder_decoder --data my_texts/ --minutes 10 --out runs/pretrained"""

LESS_MEMORY = train.LESS_MEMORY
PRETRAINED = ("bert", "encoder_decoder")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    train.add_arguments(parser, what=f"what is pre-trained: {' or '.join(PRETRAINED)} (there is no default)")


def run(options: argparse.Namespace) -> int:
    if not options.resume and options.model not in PRETRAINED:
        raise UserError(f"say what is pre-trained: --model {' or --model '.join(PRETRAINED)}")
    return train.run(options)
