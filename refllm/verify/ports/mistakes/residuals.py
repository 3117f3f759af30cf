"""Where a residual begins, and on which side of it the norm is."""

from __future__ import annotations

from refllm.verify.ports.mistakes.habit import Habit
from refllm.verify.ports.published import encoder_decoder, gpt, llama

RESIDUALS: list[Habit] = [
    (
        gpt.transformer_layer,
        ('x + tap("attention_out", a)', 'h + tap("feed_forward", f)'),
        ('n + tap("attention_out", a)', 'm + tap("feed_forward", f)'),
        "both residuals begin from the normed value",
    ),
    (
        gpt.transformer_layer,
        'x + tap("attention_out", a)',
        'n + tap("attention_out", a)',
        "the residual around attention begins from the normed value",
    ),
    (
        gpt.transformer_layer,
        'h + tap("feed_forward", f)',
        'm + tap("feed_forward", f)',
        "the residual around the feed-forward layer begins from the normed value",
    ),
    (
        llama.llama_layer,
        ('tap("residual1", x + a)', "return h + f"),
        ('tap("residual1", n + a)', "return m + f"),
        "both residuals begin from the normed value",
    ),
    (
        llama.llama_layer,
        'tap("residual1", x + a)',
        'tap("residual1", n + a)',
        "the residual around attention begins from the normed value",
    ),
    (
        llama.llama_layer,
        "return h + f",
        "return m + f",
        "the residual around the feed-forward layer begins from the normed value",
    ),
    (
        encoder_decoder.residual,
        "x + tap(name, f(n))",
        "n + tap(name, f(n))",
        "the residuals begin from the normed value",
    ),
    (
        encoder_decoder.residual,
        ("x + tap(name, f(x))", 'return tap(f"norm{number}", norm(s, p[f"norm{number}"], eps=config["eps"]))'),
        (
            "tap(name, f(x))",
            'return tap(f"norm{number}", x + norm(s, p[f"norm{number}"], eps=config["eps"]))',
        ),
        "the norms are laid over what the sublayers give, before the sums",
    ),
    (gpt.transformer_layer, 'x + tap("attention_out", a)', 'tap("attention_out", a)', "no residual around attention"),
    (
        gpt.transformer_layer,
        'h + tap("feed_forward", f)',
        'tap("feed_forward", f)',
        "no residual around the feed-forward layer",
    ),
    (
        gpt.transformer_layer,
        'h + tap("feed_forward", f)',
        'x + tap("feed_forward", f)',
        "the second residual begins from the input of the layer",
    ),
    (
        gpt.transformer_layer,
        'm = tap("norm2", norm(h',
        'm = tap("norm2", norm(x',
        "the feed-forward layer reads the input of the layer, beside attention",
    ),
    (gpt.post_norm_layer, 'x + tap("attention_out", a)', 'tap("attention_out", a)', "no residual around attention"),
    (
        gpt.post_norm_layer,
        'h + tap("feed_forward", f)',
        'tap("feed_forward", f)',
        "no residual around the feed-forward layer",
    ),
    (
        gpt.post_norm_layer,
        'h + tap("feed_forward", f)',
        's + tap("feed_forward", f)',
        "the second residual begins before the norm",
    ),
    (
        gpt.post_norm_layer,
        's = tap("residual1", x + tap("attention_out", a))\n'
        '    h = tap("norm1", norm(s, p["norm1"], eps=config["eps"]))',
        'h = tap("norm1", x + norm(tap("attention_out", a), p["norm1"], eps=config["eps"]))',
        "the norm is laid over what attention gives, before the sum",
    ),
    (
        gpt.post_norm_layer,
        't = tap("residual2", h + tap("feed_forward", f))\n    return norm(t, p["norm2"], eps=config["eps"])',
        'return h + norm(tap("feed_forward", f), p["norm2"], eps=config["eps"])',
        "the norm is laid over what the feed-forward layer gives, before the sum",
    ),
    (
        gpt.post_norm_layer,
        (
            's = tap("residual1", x + tap("attention_out", a))\n'
            '    h = tap("norm1", norm(s, p["norm1"], eps=config["eps"]))',
            't = tap("residual2", h + tap("feed_forward", f))\n    return norm(t, p["norm2"], eps=config["eps"])',
        ),
        (
            'h = tap("norm1", x + norm(tap("attention_out", a), p["norm1"], eps=config["eps"]))',
            'return h + norm(tap("feed_forward", f), p["norm2"], eps=config["eps"])',
        ),
        "both norms are laid over what the sublayers give, before the sums",
    ),
    (llama.llama_layer, 'tap("residual1", x + a)', 'tap("residual1", a)', "no residual around attention"),
    (llama.llama_layer, "return h + f", "return f", "no residual around the feed-forward layer"),
    (llama.llama_layer, "return h + f", "return x + f", "the second residual begins from the input of the layer"),
    (
        llama.llama_layer,
        'm = tap("norm2", norm(h',
        'm = tap("norm2", norm(x',
        "the feed-forward layer reads the input of the layer, beside attention",
    ),
]
