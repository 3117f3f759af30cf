# mypy: ignore-errors
"""Ports of published models as somebody writes them: NumPy in float32, from the files, with nothing of refllm in them.

    port = Port(folder, wrong="rope neighbours")      port.logits(ids=..., mask=...)      port.taps

`wrong` is one of the mistakes of `MISTAKES`, by the family; "" is the right port. A mistake may be in one layer alone,
"causal mask missing @1".
"""

from __future__ import annotations

import json
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

ROPE = ("queries permuted as of the keys", "keys not permuted")  # with a rotation of neighbours
_erf = np.vectorize(erf, otypes=["float32"])


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


ACTIVATIONS = {
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / np.sqrt(np.float32(2)))),
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(np.float32(0.7978845608) * (x + np.float32(0.044715) * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)), "relu": lambda x: np.maximum(x, 0),
    "quick": lambda x: x / (1 + np.exp(-np.float32(1.702) * x)),
}  # fmt: skip
ACTIVATIONS["gelu_pytorch_tanh"] = ACTIVATIONS["gelu_new"]


def stored(x, dtype):
    """x in 16 bits."""
    if dtype == "float16":
        return x.astype("float16").astype("float32")
    bits = x.astype("float32").view("uint32")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view("float32")


class Port:
    def __init__(self, folder: str, wrong: str = "") -> None:
        self.config = json.loads((Path(folder) / "config.json").read_text())
        self.w = {k: np.asarray(v, "float32") for k, v in load_file(Path(folder) / "model.safetensors").items()}
        self.kind = self.config["model_type"]
        self.mistake, _, layer = wrong.partition(" @")
        self.only = int(layer) if layer else None
        self.layer: Any = None
        self.taps: dict[str, Any] = {}

    def wrong(self, name: str) -> bool:
        return self.mistake == name and (self.only is None or self.layer == self.only)

    def stored(self, n):
        """The layer of the files that runs in the place n."""
        return {1: 2, 2: 1}.get(n, n) if self.mistake == "layers exchanged" else n

    def logits(self, ids, mask=None, segments=None, source=None):
        self.taps, self.layer = {}, None
        families = {"gpt2": self.gpt2, "bert": self.bert, "t5": self.t5}
        return families.get(self.kind, self.llama)(ids, mask, segments, source)

    # --- parts ---

    def get(self, name):
        for prefix in ("", "transformer.", "model.", "bert."):
            if prefix + name in self.w:
                return self.w[prefix + name]
        raise KeyError(name)

    def linear(self, x, name, bias=True):
        y = x @ self.get(name + ".weight").T
        return y + self.get(name + ".bias") if bias else y

    def ln(self, x, name, eps):
        c = x - x.mean(-1, keepdims=True)
        ddof = 1 if self.wrong("variance of C - 1") else 0
        variance = (c * c).sum(-1, keepdims=True) / np.float32(x.shape[-1] - ddof)
        return c / np.sqrt(variance + np.float32(eps)) * self.get(name + ".weight") + self.get(name + ".bias")

    def rms(self, x, g, eps):
        if self.wrong("eps outside the root"):
            return x / (np.sqrt((x * x).mean(-1, keepdims=True)) + np.float32(eps)) * g
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(eps)) * g

    def attention(self, q, k, v, seen, scale, bias=None, cap=None):
        s = q @ k.swapaxes(-1, -2) * np.float32(scale)
        if bias is not None:
            s = s + bias
        if cap and not self.wrong("score cap missing"):
            s = s / np.float32(scale) if self.wrong("cap before the scale") else s
            s = np.float32(cap) * np.tanh(s / np.float32(cap))
            s = s * np.float32(scale) if self.wrong("cap before the scale") else s
        if self.wrong("mask added as 0 and 1"):
            return softmax(s + seen.astype("float32")) @ v
        if self.wrong("mask after the softmax"):
            return np.where(seen, softmax(s), 0) @ v
        hidden = s - np.float32(10) if self.wrong("mask subtracts 10") else np.float32(-1e30)
        w = softmax(np.where(seen, s, hidden))
        return (w / np.float32(0.9) if self.wrong("dropout's scale left on") else w) @ v

    @staticmethod
    def heads(x, H):
        return x.reshape(*x.shape[:2], H, -1).transpose(0, 2, 1, 3)

    @staticmethod
    def flat(x):
        return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)

    # --- GPT-2 ---

    def gpt2(self, ids, mask, segments, source):  # noqa: PLR0912
        c = self.config
        T, H, eps = ids.shape[1], c["n_head"], c["layer_norm_epsilon"]
        offset = 1 if self.wrong("positions from 1") else 0
        x = self.get("wte.weight")[ids] + self.get("wpe.weight")[np.arange(offset, T + offset)]
        self.taps["embedding"] = x
        act = ACTIVATIONS[c["activation_function"]]
        if self.wrong("gelu erf"):
            act = ACTIVATIONS["gelu"]
        if self.wrong("gelu quick"):
            act = ACTIVATIONS["quick"]
        for n in range(c["n_layer"]):
            self.layer = n
            h = f"h.{self.stored(n)}."
            e = 1e-6 if self.wrong("eps 1e-6") else eps
            z = self.ln(x, h + "ln_1", e)
            qkv = z @ self.get(h + "attn.c_attn.weight")
            if not self.wrong("qkv bias missing"):
                b = self.get(h + "attn.c_attn.bias").copy()
                if self.wrong("query bias missing"):
                    b[: len(b) // 3] = 0
                qkv = qkv + b
            if self.wrong("qkv per head"):
                per_head = qkv.reshape(*qkv.shape[:2], H, 3, -1)
                q, k, v = (per_head[..., i, :].transpose(0, 2, 1, 3) for i in range(3))
            else:
                q, k, v = (self.heads(part, H) for part in np.split(qkv, 3, -1))
            if self.wrong("key and value exchanged"):
                k, v = v, k
            self.taps |= {f"layers.{n}.q": q, f"layers.{n}.k": k, f"layers.{n}.v": v}
            if self.wrong("key and value exchanged in the product"):
                k, v = v, k
            seen = np.tril(np.ones((T, T), bool))
            if self.wrong("causal mask missing"):
                seen = np.ones((T, T), bool)
            if self.mistake == "causal mask missing, mask obeyed":
                seen = np.ones((T, T), bool) if mask is None else mask[:, None, None, :]
            seen = ~seen if self.wrong("causal mask inverted") else seen
            scale = 1.0 if self.wrong("scale missing") else q.shape[-1] ** -0.5
            if self.wrong("scale by width"):
                scale = c["n_embd"] ** -0.5
            scale = scale / (n + 1) if self.wrong("scores by the number of the layer") else scale
            a = self.flat(self.attention(q, k, v, seen, scale))
            W = self.get(h + "attn.c_proj.weight")
            a = a @ (W.T if self.wrong("output map transposed") else W) + self.get(h + "attn.c_proj.bias")
            x = a if self.wrong("residual missing") else (z if self.wrong("residuals from the normed") else x) + a
            z = self.ln(x, h + "ln_2", e)
            f = act(z @ self.get(h + "mlp.c_fc.weight") + self.get(h + "mlp.c_fc.bias"))
            x = z if self.wrong("residuals from the normed") else x
            f = np.zeros_like(f) if self.wrong("second map not read") else f
            f = f @ self.get(h + "mlp.c_proj.weight") + self.get(h + "mlp.c_proj.bias")
            x = x + f
            self.taps[f"layers.{n}"] = x
        self.layer = None
        if not self.wrong("last norm missing"):
            x = self.ln(x, "ln_f", eps)
        self.taps["norm"] = x
        tied = c.get("tie_word_embeddings", True) or self.wrong("tied")
        if self.wrong("other head"):
            return x @ np.random.default_rng(7).normal(size=(x.shape[-1], c["vocab_size"])).astype("float32")
        return x @ (self.get("wte.weight") if tied else self.w["lm_head.weight"]).T

    # --- Llama, Mistral, Qwen, Gemma ---

    def rope(self, x, T, first=0):
        c = self.config
        D, rope = x.shape[-1], c["rope_parameters"]
        if self.wrong("half of each head turned"):
            self.mistake = ""
            y = np.concatenate([self.rope(x[..., : D // 2], T), x[..., D // 2 :]], -1)
            self.mistake = "half of each head turned"
            return y
        W = c["hidden_size"] // c["num_attention_heads"] if self.wrong("head width from the heads") else D
        base = 10000.0 if self.wrong("rope theta 10000") else rope["rope_theta"]
        f = base ** (-np.arange(0, D, 2) / W)
        if rope["rope_type"] == "linear" and not self.wrong("rope scaling missing"):
            f = f / rope["factor"]
        if rope["rope_type"] == "llama3" and not self.wrong("rope scaling missing"):
            wavelength = 2 * np.pi / f
            low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
            high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
            smooth = (rope["original_max_position_embeddings"] / wavelength - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            smooth = 1 - smooth if self.wrong("llama 3 shares exchanged") else smooth
            between = (1 - smooth) * f / rope["factor"] + smooth * f
            g = np.where(wavelength > low, f / rope["factor"], np.where(wavelength < high, f, between))
            if self.wrong("llama 3 with a scaled middle"):
                g = np.where(wavelength < high, f, f / rope["factor"])
            if self.wrong("llama 3 without its middle"):
                g = np.where(wavelength > low, f / rope["factor"], f)
            f = g
        f = stored(f, "float16").astype("float64") if self.wrong("rope frequencies in float16") else f
        a = np.arange(first, T + first)[:, None] * f
        if self.wrong("rope neighbours") or self.mistake in ROPE:
            y = np.empty_like(x)
            cos, sin = np.cos(a).astype("float32"), np.sin(a).astype("float32")
            y[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
            y[..., 1::2] = x[..., 1::2] * cos + x[..., 0::2] * sin
            return y
        a = np.repeat(a, 2, -1) if self.wrong("rope angles in pairs") else np.concatenate([a, a], -1)
        cos, sin = np.cos(a).astype("float32"), np.sin(a).astype("float32")
        if self.wrong("rope tables in bfloat16"):
            cos, sin = stored(cos, "bfloat16"), stored(sin, "bfloat16")
        half = np.concatenate([-x[..., D // 2 :], x[..., : D // 2]], -1)
        if self.wrong("rope other way"):
            half = -half
        return x * cos + half * sin

    def permuted(self, name, heads):
        """A map whose rows are put in the order of neighbours."""
        W = self.get(name + ".weight")
        return W.reshape(heads, 2, len(W) // heads // 2, -1).swapaxes(1, 2).reshape(W.shape)

    def llama(self, ids, mask, segments, source):  # noqa: PLR0912
        c, kind = self.config, self.kind
        gemma = kind.startswith("gemma")
        T, H, G, eps = ids.shape[1], c["num_attention_heads"], c["num_key_value_heads"], c["rms_norm_eps"]
        if self.wrong("eps 1e-5"):
            eps = 1e-5
        if self.wrong("heads of width over heads"):
            times = c["head_dim"] * H // c["hidden_size"]
            H, G = H * times, G * times

        def gain(name):
            g = self.get(name + ".weight")
            return 1 + g if gemma and not self.wrong("gain without 1") else g

        x = self.get("embed_tokens.weight")[ids]
        if gemma and not self.wrong("embedding not scaled"):
            others = {"embedding scale in bfloat16": 4.90625, "embedding times 4.9": 4.9, "embedding times 5.5": 5.5}
            x = x * np.float32(others.get(self.mistake, np.sqrt(c["hidden_size"])))
        self.taps["embedding"] = x
        name = c.get("hidden_activation") or c["hidden_act"]
        act = ACTIVATIONS["gelu" if self.wrong("gelu erf") else name]
        layers = c["num_hidden_layers"]
        kinds = c.get("layer_types") or [("sliding_attention" if kind == "mistral" else "full_attention")] * layers
        for n in range(layers):
            self.layer = n
            h = f"layers.{self.stored(n)}."
            biased = h + "self_attn.q_proj.bias" in self.w or "model." + h + "self_attn.q_proj.bias" in self.w
            if self.wrong("qkv bias missing"):
                biased = False
            z = self.rms(x, gain(h + "input_layernorm"), eps)
            q = self.heads(self.linear(z, h + "self_attn.q_proj", biased), H)
            k = self.heads(self.linear(z, h + "self_attn.k_proj", biased and not self.wrong("key bias missing")), G)
            v = self.heads(self.linear(z, h + "self_attn.v_proj", biased), G)
            if self.mistake in ROPE:
                of_keys = self.mistake == "queries permuted as of the keys"
                q = self.heads(z @ self.permuted(h + "self_attn.q_proj", G if of_keys else H).T, H)
                k = self.heads(z @ self.permuted(h + "self_attn.k_proj", G).T, G) if of_keys else k
            b = late_q = 0
            if self.wrong("query bias after the rotation"):
                late_q = self.get(h + "self_attn.q_proj.bias").reshape(H, 1, -1)
            q = q - late_q
            if self.wrong("key bias after the rotation"):
                b = self.get(h + "self_attn.k_proj.bias").reshape(G, 1, -1)
            k = k - b
            mapped_q, mapped_k = q, k
            late = self.wrong("qk norm after rope")
            if late:
                q, k = self.rope(q, T), self.rope(k, T)
            if kind == "qwen3" and not self.wrong("qk norm missing"):
                more = 1 if self.wrong("gain of the qk norms 1 + g") else 0
                q = self.rms(q, more + self.get(h + "self_attn.q_norm.weight"), eps)
                k = self.rms(k, more + self.get(h + "self_attn.k_norm.weight"), eps)
            if self.wrong("qk norm over all heads"):
                q, k = (
                    x
                    / np.sqrt((x * x).mean((1, 3), keepdims=True) + np.float32(eps))
                    * self.get(h + f"self_attn.{g}_norm.weight")
                    for x, g in ((mapped_q, "q"), (mapped_k, "k"))
                )
            q = q if late else self.rope(q, T)
            k = (
                k
                if late or self.wrong("keys not turned")
                else self.rope(k, T, 1 if self.wrong("keys one further") else 0)
            )
            q, k = q + late_q, k + b
            self.taps |= {f"layers.{n}.q": q, f"layers.{n}.k": k, f"layers.{n}.v": v}
            if self.wrong("key heads tiled"):
                k, v = np.tile(k, (1, H // G, 1, 1)), np.tile(v, (1, H // G, 1, 1))
            else:
                k, v = np.repeat(k, H // G, 1), np.repeat(v, H // G, 1)
            far = np.arange(T)[:, None] - np.arange(T)
            seen = far >= 0
            windowed = kinds[n] == "sliding_attention" and not (self.wrong("window in the even layers") and n % 2)
            if windowed and not self.wrong("window missing"):
                seen = seen & (far < c["sliding_window"] + (1 if self.wrong("window one wider") else 0))
            if mask is not None and self.mistake == "mask of padding one off":
                seen = seen & np.roll(mask, 1, axis=1)[:, None, None, :]
            if mask is not None and self.mistake == "mask obeyed":
                seen = seen & mask[:, None, None, :]
            width = c.get("query_pre_attn_scalar") or q.shape[-1]
            if self.wrong("head width from the heads"):
                width = c["hidden_size"] // H
            if self.wrong("scale by the heads width"):
                width = q.shape[-1]
            cap = c.get("final_logit_softcapping" if self.wrong("caps exchanged") else "attn_logit_softcapping")
            a = self.flat(self.attention(q, k, v, seen, width**-0.5, cap=cap))
            a = self.linear(a, h + "self_attn.o_proj", h + "self_attn.o_proj.bias" in self.w)
            over_sums = self.wrong("norms over the sums")
            if kind == "gemma2" and not self.wrong("norms after missing") and not over_sums:
                a = self.rms(a, gain(h + "post_attention_layernorm"), eps)
            x = (z if self.wrong("residuals from the normed") else x) + a
            x = self.rms(x, gain(h + "post_attention_layernorm"), eps) if over_sums else x
            second = "pre_feedforward_layernorm" if kind == "gemma2" else "post_attention_layernorm"
            z = self.rms(x, gain(h + second), eps)
            g, u = (self.linear(z, h + f"mlp.{part}_proj", False) for part in ("gate", "up"))
            if self.wrong("gate and up exchanged"):
                g, u = u, g
            self.taps |= {f"layers.{n}.gate": g, f"layers.{n}.up": u}
            if self.wrong("gate and up exchanged at the product"):
                g, u = u, g
            f = self.linear(act(g) * u, h + "mlp.down_proj", False)
            if kind == "gemma2" and not self.wrong("norms after missing") and not over_sums:
                f = self.rms(f, gain(h + "post_feedforward_layernorm"), eps)
            x = (z if self.wrong("residuals from the normed") else x) + f
            x = self.rms(x, gain(h + "post_feedforward_layernorm"), eps) if over_sums else x
            self.taps[f"layers.{n}"] = x
        self.layer = None
        x = self.rms(x, gain("norm"), eps)
        self.taps["norm"] = x
        tied = c.get("tie_word_embeddings", False) or self.wrong("tied")
        y = x @ (self.get("embed_tokens.weight") if tied else self.w["lm_head.weight"]).T
        if c.get("final_logit_softcapping") and not self.wrong("logit cap missing"):
            cap = np.float32(c["attn_logit_softcapping" if self.wrong("caps exchanged") else "final_logit_softcapping"])
            y = cap * np.tanh(y / cap)
        return y

    # --- BERT ---

    def bert(self, ids, mask, segments, source):
        c = self.config
        T, H, eps = ids.shape[1], c["num_attention_heads"], c["layer_norm_eps"]
        if self.wrong("eps 1e-5"):
            eps = 1e-5
        e = "embeddings."
        x = self.get(e + "word_embeddings.weight")[ids]
        offset = 1 if self.wrong("positions from 1") else 0
        x = x + self.get(e + "position_embeddings.weight")[np.arange(offset, T + offset)]
        x = self.ln(x, e + "LayerNorm", eps) if self.wrong("segments after the norm") else x
        if not self.wrong("segments missing"):
            x = x + self.get(e + "token_type_embeddings.weight")[segments]
        x = x if self.wrong("segments after the norm") else self.ln(x, e + "LayerNorm", eps)
        self.taps["embedding"] = x
        act = ACTIVATIONS["gelu_new" if self.wrong("gelu tanh") else c["hidden_act"]]
        for n in range(c["num_hidden_layers"]):
            self.layer = n
            h = f"encoder.layer.{self.stored(n)}."
            q, k, v = (
                self.heads(self.linear(x, h + f"attention.self.{p}", not self.wrong(f"{p} bias missing")), H)
                for p in ("query", "key", "value")
            )
            seen = np.ones((1, 1, 1, T), bool) if self.wrong("padding not masked") else mask[:, None, None, :]
            a = self.flat(self.attention(q, k, v, seen, q.shape[-1] ** -0.5))
            a = self.linear(a, h + "attention.output.dense")
            if self.wrong("norm before the sum") or self.wrong("norms before the sums"):
                x = x + self.ln(a, h + "attention.output.LayerNorm", eps)
            else:
                before = a if self.wrong("no residuals") else x + a
                x = self.ln(before, h + "attention.output.LayerNorm", eps)
            f = self.linear(act(self.linear(x, h + "intermediate.dense")), h + "output.dense")
            if self.wrong("norms before the sums"):
                x = x + self.ln(f, h + "output.LayerNorm", eps)
            else:
                x = self.ln(f if self.wrong("no residuals") else x + f, h + "output.LayerNorm", eps)
            self.taps[f"layers.{n}"] = x
        self.layer = None
        if "cls.predictions.bias" in self.w:
            z, name = self.linear(x, "cls.predictions.transform.dense"), "cls.predictions.transform.LayerNorm"
            z = act(self.ln(z, name, eps)) if self.wrong("norm before gelu") else self.ln(act(z), name, eps)
            y = z @ self.get(e + "word_embeddings.weight").T
            return y if self.wrong("bias of the output missing") else y + self.w["cls.predictions.bias"]
        if "classifier.weight" in self.w:
            first = x[:, -1] if self.wrong("pooled from the last") else x[:, 0]
            z = self.linear(first, "pooler.dense")
            y = self.linear(z if self.wrong("tanh missing") else np.tanh(z), "classifier")
            return y[..., ::-1] if self.wrong("classes the other way round") else y
        return x

    # --- T5 ---

    def bias(self, T, table, both):
        K, farthest = self.config["relative_attention_num_buckets"], self.config["relative_attention_max_distance"]
        farthest = farthest // 2 if self.wrong("half the max distance") else farthest
        far = np.arange(T)[None] - np.arange(T)[:, None]
        bucket = np.zeros((T, T), int)
        n = K
        if both:
            n = K // 2
            bucket += n * (far > 0)
            far = abs(far)
        else:
            far = np.maximum(-far, 0)
        exact = n // 2
        large = exact + (np.log(np.maximum(far, 1) / exact) / np.log(farthest / exact) * (n - exact))
        large = np.ceil(large).astype(int) if self.wrong("buckets rounded up") else large.astype(int)
        bucket += np.where(far < exact, far, np.minimum(large, n - 1))
        return table[bucket].transpose(2, 0, 1)

    def t5(self, ids, mask, segments, source):
        c = self.config
        H, eps = c["num_heads"], c["layer_norm_epsilon"]
        token = self.get("shared.weight")
        gated = c["feed_forward_proj"].startswith("gated")
        act = ACTIVATIONS["gelu_new" if gated else c["feed_forward_proj"]]
        if self.wrong("gelu erf"):
            act = ACTIVATIONS["gelu"]

        def attend(z, memory, name, seen, bias):
            q, k, v = (
                self.heads(self.linear(y, f"{name}.{p}", False), H) for y, p in ((z, "q"), (memory, "k"), (memory, "v"))
            )
            scale = q.shape[-1] ** -0.5 if self.wrong("scores scaled") else 1.0
            return self.linear(self.flat(self.attention(q, k, v, seen, scale, bias)), f"{name}.o", False)

        def fed(z, name):
            if gated:
                gate, up = ("wi_1", "wi_0") if self.wrong("gate and up exchanged in both halves") else ("wi_0", "wi_1")
                f = act(self.linear(z, f"{name}.{gate}", False)) * self.linear(z, f"{name}.{up}", False)
            else:
                f = act(self.linear(z, name + ".wi", False))
            f = f * np.float32(0.9) if self.wrong("hidden values times 0.9") else f
            return self.linear(f, name + ".wo", False)

        def norm(x, name):
            z = x - x.mean(-1, keepdims=True) if self.wrong("mean subtracted") else x
            return self.rms(z, self.get(name + ".weight"), eps)

        def half(stack, x, memory):
            T = x.shape[1]
            key = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
            both = stack == "encoder" or self.wrong("decoder with the buckets of the encoder")
            if self.wrong("decoder with the table of the encoder"):
                key = key.replace("decoder", "encoder")
            bias = None if self.wrong("distances missing") else self.bias(T, self.get(key), both)
            padded = np.ones_like(mask) if self.wrong("padding not masked") else mask
            padded = ~padded if self.wrong("padding mask inverted") else padded
            seen = padded[:, None, None, :] if stack == "encoder" else np.tril(np.ones((T, T), bool))
            self.taps[f"{stack}.embedding"] = x
            for n in range(c["num_layers"] if stack == "encoder" else c["num_decoder_layers"]):
                self.layer = n
                b = f"{stack}.block.{n}.layer."
                z = norm(x, b + "0.layer_norm")
                there = n == 0 or not self.wrong("distances in the first layers alone")
                x = x + attend(z, z, b + "0.SelfAttention", seen, bias if there else None)
                if stack == "decoder":
                    z = norm(x, b + "1.layer_norm")
                    cross = np.ones_like(mask) if self.wrong("memory's padding not masked") else padded
                    x = x + attend(z, memory, b + "1.EncDecAttention", cross[:, None, None, :], None)
                last = 2 if stack == "decoder" else 1
                x = x + fed(norm(x, f"{b}{last}.layer_norm"), f"{b}{last}.DenseReluDense")
                self.taps[f"{stack}.layers.{n}"] = x
            self.layer = None
            x = norm(x, f"{stack}.final_layer_norm")
            self.taps[f"{stack}.norm"] = x
            return x

        memory = half("encoder", token[source], None)
        h = half("decoder", token[ids], memory)
        if c.get("scale_decoder_outputs", c["tie_word_embeddings"]) and not self.wrong("output not scaled"):
            h = h * np.float32(c["d_model"] ** -0.5)
        return h @ (token if c["tie_word_embeddings"] else self.w["lm_head.weight"]).T
