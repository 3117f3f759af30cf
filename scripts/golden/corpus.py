"""The files of golden/, in order, and the cases that each holds."""

from __future__ import annotations

from golden import loader
from golden.case import File
from golden.cases import attention, blocks, layers, linear, losses, models, runs, training

OPERATIONS = {
    linear: ["linear", "matmul", "heads", "embedding", "sinusoidal", "add_positions"],
    attention: ["attention"],
    losses: ["softmax", "log_softmax", "cross_entropy", "soft_cross_entropy", "mean_squared_error"],
    layers: ["layer_norm", "relu", "gelu_erf", "gelu_tanh", "dropout"],
    training: ["sgd", "adam", "adamw", "clip_by_global_norm", "warmup_cosine"],
}

FILES = [
    File("L0/loader.json", 0, loader.cases),
    *(File(f"L1/{name}.json", 1, getattr(module, name)) for module, names in OPERATIONS.items() for name in names),
    File("L2/feed_forward.json", 2, blocks.feed_forward),
    File("L2/self_attention.json", 2, blocks.self_attention),
    File("L2/transformer_layer.json", 2, blocks.transformer_layer),
    File("L3/gpt.json", 3, models.gpt),
    File("L3/gpt_loss.json", 3, models.gpt_loss),
    File("L3/sentence.json", 3, models.sentence),
    File("L4/train_step.json", 4, runs.train_step),
    File("L4/train.json", 4, runs.train),
    File("L5/generate.json", 5, runs.generate),
    File("L5/sample.json", 5, runs.sample),
    File("L6/resume.json", 6, runs.resume),
]
