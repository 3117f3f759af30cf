"""The files of golden/, in order, and the cases that each holds."""

from __future__ import annotations

from golden import loader
from golden.case import File
from golden.cases import (
    attention,
    beam,
    bert,
    blocks,
    earlier,
    encoder_decoder,
    layers,
    linear,
    llama,
    long,
    losses,
    models,
    recurrent,
    runs,
    switch,
    training,
)

OPERATIONS = {
    linear: ["linear", "matmul", "heads", "embedding", "sinusoidal", "add_positions"],
    attention: ["attention"],
    losses: [
        *("softmax", "log_softmax", "cross_entropy", "soft_cross_entropy", "mean_squared_error"),
        *("smoothed_cross_entropy", "mean_pool", "info_nce", "l2_penalty"),
    ],
    long: [
        *("rms_norm", "silu", "multiply", "rotary_halves", "rotary_interleaved", "repeat_heads"),
        *("t5_bias_causal", "t5_bias_bidirectional", "alibi", "relative_attention"),
    ],
    switch: ["gate", "load_balance", "dispatch", "combine", "expert_matmul", "expert_linear"],
    layers: ["layer_norm", "relu", "gelu_erf", "gelu_tanh", "dropout"],
    training: ["sgd", "adam", "adamw", "clip_by_global_norm", "warmup_cosine"],
    recurrent: ["tanh", "rnn", "lstm", "window"],
}

FILES = [
    File("L0/loader.json", 0, loader.cases),
    *(File(f"L1/{name}.json", 1, getattr(module, name)) for module, names in OPERATIONS.items() for name in names),
    File("L2/feed_forward.json", 2, blocks.feed_forward),
    File("L2/self_attention.json", 2, blocks.self_attention),
    File("L2/transformer_layer.json", 2, blocks.transformer_layer),
    File("L2/bidirectional.json", 2, recurrent.bidirectional),
    File("L2/cross_attention.json", 2, encoder_decoder.cross_attention),
    File("L2/gated_feed_forward.json", 2, llama.gated_feed_forward),
    File("L2/grouped_attention.json", 2, llama.grouped_attention),
    File("L2/llama_layer.json", 2, llama.llama_layer),
    File("L2/switch_layer.json", 2, switch.switch_layer),
    File("L3/gpt.json", 3, models.gpt),
    File("L3/gpt_loss.json", 3, models.gpt_loss),
    File("L3/sentence.json", 3, models.sentence),
    File("L3/recurrent_lm.json", 3, earlier.recurrent_lm),
    File("L3/nnlm.json", 3, earlier.nnlm),
    File("L3/hybrid.json", 3, earlier.hybrid),
    File("L3/bert.json", 3, bert.bert),
    File("L3/bert_loss.json", 3, bert.losses),
    File("L3/encoder_decoder.json", 3, encoder_decoder.encoder_decoder),
    File("L3/seq2seq_loss.json", 3, encoder_decoder.losses),
    File("L3/llama.json", 3, llama.llama),
    File("L3/llama_loss.json", 3, llama.llama_loss),
    File("L3/switch.json", 3, switch.switch),
    File("L3/switch_loss.json", 3, switch.switch_loss),
    File("L4/train_step.json", 4, runs.train_step),
    File("L4/train_step_earlier.json", 4, earlier.train_step),
    File("L4/train.json", 4, runs.train),
    File("L4/llama.json", 4, llama.training),
    File("L4/switch.json", 4, switch.training),
    File("L5/generate.json", 5, runs.generate),
    File("L5/generate_earlier.json", 5, earlier.generate),
    File("L5/translate.json", 5, encoder_decoder.translate),
    File("L5/beam_search.json", 5, beam.beam_search),
    File("L5/sample.json", 5, runs.sample),
    File("L5/llama.json", 5, llama.generate),
    File("L5/switch.json", 5, switch.generate),
    File("L6/resume.json", 6, runs.resume),
]
