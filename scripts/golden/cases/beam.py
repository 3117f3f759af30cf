"""L5: beam search, with a model that goes on with a prompt and with one that reads a source."""

from __future__ import annotations

from typing import Any

import numpy as np

from golden import shapes
from golden.case import Case, Draw
from golden.cases.blocks import parameters
from golden.cases.encoder_decoder import UNTIED
from golden.cases.models import SMALL


def beam_search() -> list[Case]:
    def case(slug: str, about: str, asked: dict[str, Any], drawn: dict[str, np.ndarray], **how: Any) -> Case:
        keywords = {**asked, "end": 0, **how}
        return Case(f"GEN/beam-{slug}", "beam_search", about, drawn, keywords, gradient=False)

    def prompt(slug: str, about: str, seed: int, **how: Any) -> Case:
        """The drawn models were chosen so that texts vary and no decision is near a tie."""
        name, V = f"GEN/beam-small {seed}", int(str(SMALL["vocabulary"]))
        drawn = parameters(Draw(name), shapes.gpt(SMALL), scale=0.25)
        drawn |= {path: 4 * drawn[path] for path in ("p.token", "p.position")}
        ids = Draw(f"{name} prompt").integers(1, 2, high=V)
        asked = {"model": "gpt", "ids": ids, "source": None, "allowed": None, "config": SMALL}
        return case(slug, about, asked, drawn, **how)

    def sources(slug: str, about: str, seed: int, **how: Any) -> Case:
        name = f"GEN/beam-untied {seed}"
        drawn = parameters(Draw(name), shapes.encoder_decoder(UNTIED), scale=1.0)
        asked = {
            "model": "encoder_decoder",
            "ids": np.ones((2, 1), dtype=np.int64),
            "source": Draw(f"{name} source").integers(2, 4, high=UNTIED["vocabulary"]),
            "allowed": np.array([[True] * 4, [True, True, True, False]]),
            "config": UNTIED,
        }
        return case(slug, about, asked, drawn, **how)

    return [
        prompt("three", "three beams, no end token in sight: texts of full length", 15, new_tokens=5, beams=3,
               length_penalty=0.5),
        prompt("ends", "texts that end at different lengths are compared by log P / length^0.5", 46, new_tokens=5,
               beams=3, length_penalty=0.5),
        prompt("early-end", "two texts end after two tokens; a third goes on to full length", 32, new_tokens=5, beams=3,
               length_penalty=0.5),
        prompt("no-penalty", "by log P alone; a text that ends beyond the first three is not finished, and takes "
               "no place from those that go on", 2, new_tokens=5, beams=3, length_penalty=0.0),
        prompt("greedy", "one beam is greedy choice until the end", 32, new_tokens=5, beams=1, length_penalty=1.0),
        sources("translate", "two sources with two beams each, which end at their own lengths; one source is padded",
                83, new_tokens=4, beams=2, length_penalty=1.0),
        sources("translate-long", "the beams change their order on the way, and with it what the cache holds", 58,
                new_tokens=4, beams=2, length_penalty=1.0),
    ]  # fmt: skip
