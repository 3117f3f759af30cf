"""Mistakes of rotary positions on a part of the head, and beyond the length of training."""

from __future__ import annotations

from refllm.spec.partial_rotary import partial_rotary
from refllm.spec.rotary_scaling import (
    linear_frequencies,
    llama3_frequencies,
    ntk_frequencies,
    trained_frequencies,
    yarn_frequencies,
)
from refllm.verify.mutants.bank import Edited, Edits, edit

G = "https://github.com/"
TURNED = "y, rotary_back = rotary(x[..., :turned], positions=positions, base=base)"
JOINED = "return concatenate([y, x[..., turned:]], axis=-1), partial_rotary_back"
BACK = "return concatenate([rotary_back(dy[..., :turned]), dy[..., turned:]], axis=-1)"
CHOSEN = 'rotary = rotary_halves if layout == "halves" else rotary_interleaved'
LINEAR = "return trained_frequencies(width, base) / factor"
NTK = "return trained_frequencies(width, base * power(factor, ratio(width, width - 2)))"
MIXED, SCALE = "return (1 - r) * f + r * f / factor, scale", "scale = 1 + log(max(factor, 1.0)) / 10"
LOW, HIGH = "low = max(0, int((turns >= beta_fast).sum()) - 1)", "high = int((turns > beta_slow).sum())"
LINE = "r = ratio(where(line < 0, 0, where(line > length, length, line)), length)"
SMOOTH = "m = (turns - low_factor) / (high_factor - low_factor)"
BANDS = "return (1 - m) * f / factor + m * f"


def linear(new: str) -> Edits:
    return edit(linear_frequencies, LINEAR, f"return {new}")


def ntk(new: str) -> Edits:
    return edit(ntk_frequencies, NTK, f"return {new}")


# fmt: off
PARTS = [
    Edited("ROPE-PART/frequencies-of-the-head", "partial rotary with the frequencies of the whole head's width",
           edit(partial_rotary, TURNED,
                "y, _ = rotary(x[..., :turned], positions=positions, base=power(base, ratio(turned, x.shape[-1])))"),
           G + "pie-project/pie/issues/602"),
    Edited("ROPE-PART/all", "partial rotary that turns the whole head",
           edit(partial_rotary, TURNED, "whole = x.shape[-1] // 2 * 2\n"
                "y, _ = rotary(x[..., :whole], positions=positions, base=base)",
                JOINED, "return concatenate([y, x[..., whole:]], axis=-1), partial_rotary_back"),
           G + "AI-Hypercomputer/maxtext/pull/4615"),
    Edited("ROPE-PART/last", "partial rotary that turns the last entries instead of the first",
           edit(partial_rotary, TURNED, "rest = x.shape[-1] - turned\n"
                "y, _ = rotary(x[..., rest:], positions=positions, base=base)",
                JOINED, "return concatenate([x[..., :rest], y], axis=-1), partial_rotary_back")),
    Edited("ROPE-PART/other-layout", "partial rotary in the other layout",
           edit(partial_rotary, CHOSEN, 'rotary = rotary_interleaved if layout == "halves" else rotary_halves')),
    Edited("ROPE-PART/rest-dropped", "partial rotary that sets the rest to 0",
           edit(partial_rotary, JOINED, "return concatenate([y, 0 * x[..., turned:]], axis=-1), partial_rotary_back")),
    Edited("ROPE-PART/rest-first", "partial rotary that puts the rest in front",
           edit(partial_rotary, JOINED, "return concatenate([x[..., turned:], y], axis=-1), partial_rotary_back")),
    Edited("ROPE-PART/none", "partial rotary that turns nothing",
           edit(partial_rotary, JOINED, "return x, partial_rotary_back")),
    Edited("ROPE-PART/partners-of-the-head", "partial rotary whose partners are half a head apart",
           edit(partial_rotary, JOINED, 'if layout != "halves" or x.shape[-1] % 2 or turned == x.shape[-1]:\n'
                "    return concatenate([y, x[..., turned:]], axis=-1), partial_rotary_back\n"
                "n, half = turned // 2, x.shape[-1] // 2\n"
                "pairs = concatenate([x[..., :n], x[..., half : half + n]], axis=-1)\n"
                "y, _ = rotary(pairs, positions=positions, base=base)\n"
                "parts = [y[..., :n], x[..., n:half], y[..., n:], x[..., half + n :]]\n"
                "return concatenate(parts, axis=-1), partial_rotary_back"),
           G + "pie-project/pie/issues/602"),
    Edited("ROPE-PART/gradient-of-the-rest", "partial rotary whose rest gets no gradient",
           edit(partial_rotary, BACK,
                "return concatenate([rotary_back(dy[..., :turned]), 0 * dy[..., turned:]], axis=-1)")),
    Edited("ROPE-PART/gradient-turned-on", "partial rotary whose gradient passes unchanged",
           edit(partial_rotary, BACK, "return dy")),
]
LONGER = [
    Edited("ROPE-SCALE/trained-pair-exponent", "frequencies with the exponent i/D of the pair instead of 2i/D",
           edit(trained_frequencies, "return angles(arange(1, 2), width, base)[0]",
                "return power(base, -ratio(arange(width // 2), width))")),
    Edited("ROPE-SCALE/trained-inverse", "wavelengths base^(2i/D) instead of frequencies",
           edit(trained_frequencies, "return angles(arange(1, 2), width, base)[0]",
                "return power(base, ratio(arange(0, width, 2), width))")),
    Edited("ROPE-SCALE/linear-ignored", "position interpolation that is left out",
           linear("trained_frequencies(width, base)")),
    Edited("ROPE-SCALE/linear-multiplied", "position interpolation that multiplies by the factor",
           linear("trained_frequencies(width, base) * factor")),
    Edited("ROPE-SCALE/linear-base", "position interpolation that multiplies the base by the factor",
           linear("trained_frequencies(width, base * factor)")),
    Edited("ROPE-SCALE/linear-last-alone", "position interpolation of the slowest pair alone",
           linear("trained_frequencies(width, base) / (1 + (factor - 1) * (arange(width // 2) == width // 2 - 1))")),
    Edited("ROPE-SCALE/linear-root", "position interpolation by the root of the factor",
           linear("trained_frequencies(width, base) / sqrt(factor)")),
    Edited("ROPE-SCALE/ntk-no-exponent", "NTK-aware frequencies of base · factor, without the exponent D / (D - 2)",
           ntk("trained_frequencies(width, base * factor)")),
    Edited("ROPE-SCALE/ntk-exponent-inverse", "NTK-aware frequencies with the exponent (D - 2) / D",
           ntk("trained_frequencies(width, base * power(factor, ratio(width - 2, width)))")),
    Edited("ROPE-SCALE/ntk-pairs", "NTK-aware frequencies with the number of pairs for D in the exponent",
           ntk("trained_frequencies(width, base * power(factor, ratio(width // 2, max(1, width // 2 - 2))))")),
    Edited("ROPE-SCALE/ntk-dynamic", "NTK-aware frequencies whose base is stretched by factor² - (factor - 1), the "
           "rule of the dynamic form for a text as long as the factor allows, where the factor itself should stand",
           ntk("trained_frequencies(width, base * power(factor * factor - (factor - 1), ratio(width, width - 2)))"),
           G + "vllm-project/vllm/issues/41236"),
    Edited("ROPE-SCALE/ntk-divided-too", "NTK-aware frequencies that are divided by the factor too",
           ntk("trained_frequencies(width, base * power(factor, ratio(width, width - 2))) / factor")),
    Edited("ROPE-SCALE/ntk-ignored", "NTK-aware frequencies that are those of training",
           ntk("trained_frequencies(width, base)")),
    Edited("ROPE-SCALE/yarn-stretched-base", "YaRN whose fast pairs have the frequencies of the NTK-aware base",
           edit(yarn_frequencies, MIXED, "kept = ntk_frequencies(width=width, base=base, factor=factor)\n"
                "return (1 - r) * kept + r * f / factor, scale"),
           G + "paiml/aprender/issues/2161"),
    Edited("ROPE-SCALE/yarn-ramp-turned", "YaRN that divides the fast pairs and keeps the slow ones",
           edit(yarn_frequencies, MIXED, "return r * f + (1 - r) * f / factor, scale")),
    Edited("ROPE-SCALE/yarn-paper", "YaRN with a line in the number of turns, as its paper has it and its code not",
           edit(yarn_frequencies, LINE, "r = (beta_fast - turns[: width // 2]) / (beta_fast - beta_slow)\n"
                "r = where(r < 0, 0, where(r > 1, 1, r))")),
    Edited("ROPE-SCALE/yarn-step", "YaRN without the band between the borders",
           edit(yarn_frequencies, LINE, "r = ratio(where(line < 0, 0, where(line > 0, length, line)), length)")),
    Edited("ROPE-SCALE/yarn-low-rounded-up", "YaRN whose first border is rounded up",
           edit(yarn_frequencies, LOW, "low = int((turns >= beta_fast).sum())")),
    Edited("ROPE-SCALE/yarn-high-rounded-down", "YaRN whose second border is rounded down",
           edit(yarn_frequencies, HIGH, "high = max(0, int((turns > beta_slow).sum()) - 1)")),
    Edited("ROPE-SCALE/yarn-high-at-the-last-pair",
           "YaRN whose second border is cut off at the last pair, D/2 - 1, instead of D - 1",
           edit(yarn_frequencies, HIGH, f"{HIGH}\nhigh = min(high, width // 2 - 1)")),
    Edited("ROPE-SCALE/yarn-high-not-cut-off", "YaRN whose second border is not cut off at D - 1",
           edit(yarn_frequencies, HIGH,
                "far = original * power(base, -ratio(2 * arange(64 * width), width)) / (2 * pi())\n"
                "high = int((far > beta_slow).sum())")),
    Edited("ROPE-SCALE/yarn-low-not-cut-off", "YaRN whose first border is not cut off at pair 0",
           edit(yarn_frequencies, LOW,
                "near = original * power(base, ratio(2 * arange(1, 64 * width), width)) / (2 * pi())\n"
                "low = int((turns >= beta_fast).sum()) - 1 - int((near < beta_fast).sum()) * (turns[0] < beta_fast)")),
    Edited("ROPE-SCALE/yarn-extended-length", "YaRN with the extended length in the place of the trained one",
           edit(yarn_frequencies, LOW, f"turns = turns * factor\n{LOW}")),
    Edited("ROPE-SCALE/yarn-no-two-pi", "YaRN that counts radians for turns",
           edit(yarn_frequencies, LOW, f"turns = turns * 2 * pi()\n{LOW}")),
    Edited("ROPE-SCALE/yarn-no-scale", "YaRN without the scale of queries and keys",
           edit(yarn_frequencies, SCALE, "scale = 1 + 0 * log(max(factor, 1.0))"),
           G + "turboderp-org/exllamav3/issues/259"),
    Edited("ROPE-SCALE/yarn-scale-squared", "YaRN with the scale of the scores for that of queries and keys",
           edit(yarn_frequencies, SCALE, f"{SCALE}\nscale = scale * scale")),
    Edited("ROPE-SCALE/yarn-scale-below-one", "YaRN with a scale below 1 for a factor below 1",
           edit(yarn_frequencies, SCALE, "scale = 1 + log(factor) / 10")),
    Edited("ROPE-SCALE/llama3-ignored", "Llama 3's scaling that is left out",
           edit(llama3_frequencies, BANDS, "return f"), G + "felafax/felafax/issues/59"),
    Edited("ROPE-SCALE/llama3-linear", "Llama 3's scaling that divides every pair by the factor",
           edit(llama3_frequencies, BANDS, "return f / factor")),
    Edited("ROPE-SCALE/llama3-turned", "Llama 3's scaling with fast and slow pairs exchanged",
           edit(llama3_frequencies, BANDS, "return m * f / factor + (1 - m) * f")),
    Edited("ROPE-SCALE/llama3-no-cut", "Llama 3's scaling without the ends of the band",
           edit(llama3_frequencies, "m = where(m < 0, 0, where(m > 1, 1, m))", "")),
    Edited("ROPE-SCALE/llama3-step", "Llama 3's scaling without the band between",
           edit(llama3_frequencies, SMOOTH, "m = (turns >= low_factor) * 1.0")),
    Edited("ROPE-SCALE/llama3-wavelengths", "Llama 3's scaling with a line in the wavelength instead of the turns",
           edit(llama3_frequencies, SMOOTH, "m = (1 / low_factor - 1 / turns) / (1 / low_factor - 1 / high_factor)")),
    Edited("ROPE-SCALE/llama3-wavelengths-reversed", "Llama 3's scaling whose middle band multiplies wavelengths, by a "
           "line in the wavelength that runs the other way",
           edit(llama3_frequencies, SMOOTH, "m = (1 / turns - 1 / high_factor) / (1 / low_factor - 1 / high_factor)",
                BANDS, "return where((m > 0) & (m < 1), f / ((1 - m) * factor + m), (1 - m) * f + m * f / factor)"),
           G + "ml-explore/mlx-examples/pull/907"),
    Edited("ROPE-SCALE/llama3-no-two-pi", "Llama 3's scaling that counts radians for turns",
           edit(llama3_frequencies, "turns = original * f / (2 * pi())", "turns = original * f")),
    Edited("ROPE-SCALE/llama3-extended-length", "Llama 3's scaling with the extended length for the trained one",
           edit(llama3_frequencies, "turns = original * f / (2 * pi())", "turns = factor * original * f / (2 * pi())")),
]
# fmt: on
MUTANTS = [*PARTS, *LONGER]
