"""An explanation as a page: the tokens in the colour of what they account for, and a picture of every attention."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from html import escape

from refllm.cells import cut, widest
from refllm.explain.explanation import AttentionMap, Explanation, Grid, LabelScores
from refllm.explain.figures import signed, told_change, told_missing

_INK = (59, 126, 246)  # of the attention maps: with opacity for weight it reads on white and on black
_CELL, _LETTER = 18, 7.2  # pixels of a cell of the large map, and of a letter beside it

_STYLE = """
:root { color-scheme: light dark; --for: 37 99 235; --against: 217 119 6; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: 1rem; margin: 1rem 0 .3rem; }
.quiet { opacity: .75; } .number { text-align: right; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; }
.tokens { display: flex; flex-wrap: wrap; gap: .35rem .25rem; padding: 0; list-style: none; }
.tokens li { padding: .1rem .4rem .15rem; border-radius: .3rem; text-align: center; border: 1px solid #8883; }
.tokens small { display: block; font-size: .7rem; font-variant-numeric: tabular-nums; }
.for { background: rgb(var(--for) / var(--share)); } .against { background: rgb(var(--against) / var(--share)); }
.legend { display: flex; align-items: center; gap: .6rem; flex-wrap: wrap; font-size: .85rem; }
.legend i { width: 9rem; height: .8rem; border-radius: .3rem; border: 1px solid #8883;
  background: linear-gradient(to right, rgb(var(--against) / .6), transparent, rgb(var(--for) / .6)); }
.heads { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); gap: .8rem; }
figure { margin: 0; } figcaption { font-size: .75rem; }
figure img { width: 100%; aspect-ratio: var(--shape); image-rendering: pixelated; border: 1px solid #8886; }
.wide { overflow-x: auto; } svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
svg image { image-rendering: pixelated; }
"""


def page(found: Explanation, shown: tuple[str, AttentionMap, Grid] | None) -> str:
    """The page as text, without anything from elsewhere; `shown` is the attention that is drawn large."""
    title = " ".join(found.text.split())
    title = cut(title, 70)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>refllm explain: {escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
    ]
    if found.probabilities is not None:
        parts += _probabilities(found.probabilities)
    if found.scores is not None:
        parts += _scores(found.tokens, found.scores)
    if shown is not None:
        parts += [*_large(*shown), *_small(found.maps)]
    return "\n".join([*parts, "</body></html>", ""])


def _probabilities(probabilities: dict[str, float]) -> Iterator[str]:
    yield "<table><tr><th>Label<th>Probability</tr>"
    for label, p in sorted(probabilities.items(), key=lambda item: -item[1]):
        yield f'<tr><td>{escape(label)}<td class="number">{p:.4f}</tr>'
    yield "</table>"


def _legend(label: str, largest: float) -> str:
    return (
        f'<p class="legend" aria-hidden="true"><span>−{largest:.3g}, against {escape(label)}</span><i></i>'
        f"<span>+{largest:.3g}, for {escape(label)}</span></p>"
    )


def _scores(tokens: list[str], s: LabelScores) -> Iterator[str]:
    largest = max(map(abs, s.scores))
    steps = "" if s.steps is None else f" in {s.steps} steps"
    method = escape(s.method.replace("-", " "))
    yield f"<h2>What each token accounts for in the {escape(s.answer)} of {escape(s.label)}</h2>"
    if largest:
        yield _legend(s.label, largest)
    yield '<ul class="tokens">'
    for token, score, number in zip(tokens, s.scores, signed(s.scores, fewest=3), strict=True):
        side, share = "against" if score < 0 else "for", 0.6 * abs(score) / (largest or 1.0)
        yield f'<li class="{side}" style="--share: {share:.3f}">{escape(token)}<small>{number}</small></li>'
    yield "</ul>"
    (total,) = signed([sum(s.scores)], fewest=4, like=s.scores)
    yield (
        f'<p class="quiet">By {method} from the baseline <em>{escape(s.baseline)}</em>{steps}. '
        f"{escape(told_change(s))}. The tokens add up to {total}; {told_missing(s)}.</p>"
    )


def _large(name: str, one: AttentionMap, grid: Grid) -> Iterator[str]:
    """One grid with its tokens, and the same in words."""
    left, top = (10 + _LETTER * widest(names) for names in (one.queries, one.keys))
    width, height = _CELL * len(one.keys), _CELL * len(one.queries)
    yield f"<h2>Attention: {escape(name)}</h2>"
    yield (
        '<p class="quiet">A row is a token that looks, a column one that is looked at; the strongest cell is the '
        "largest weight. Weights say where a layer reads, not what the answer depends on.</p>"
    )
    yield f'<div class="wide"><svg role="img" aria-label="{escape(name)}: its largest weights stand below as text" '
    yield f'width="{left + width + 4:.0f}" height="{top + height + 4:.0f}">'
    for i, token in enumerate(one.keys):
        x = left + _CELL * (i + 0.7)
        yield f'<text transform="translate({x:.1f} {top - 6:.1f}) rotate(-90)">{escape(token)}</text>'
    for i, token in enumerate(one.queries):
        y = top + _CELL * (i + 0.7)
        yield f'<text x="{left - 6:.1f}" y="{y:.1f}" text-anchor="end">{escape(token)}</text>'
    yield f'<image x="{left:.1f}" y="{top:.1f}" width="{width}" height="{height}" preserveAspectRatio="none" '
    yield f'href="{_picture(grid)}"/><rect x="{left:.1f}" y="{top:.1f}" width="{width}" height="{height}" '
    yield 'fill="none" stroke="#8886"/></svg></div>'
    yield "<details><summary>The three largest weights of each token</summary><table>"
    for token, row in zip(one.queries, grid, strict=True):
        best = sorted(range(len(row)), key=lambda s: -row[s])[:3]
        said = ", ".join(f"{escape(one.keys[s])} {row[s]:.3f}" for s in best if row[s] > 0)
        yield f"<tr><th>{escape(token)}<td>{said}</tr>"
    yield "</table></details>"


def _small(maps: list[AttentionMap]) -> Iterator[str]:
    yield "<h2>Every layer and head</h2>"
    yield '<p class="quiet">In each map the strongest cell is its own largest weight, which stands under it.</p>'
    for one in maps:
        yield f'<h3>Layer {escape(one.name)}</h3><div class="heads">'
        for number, grid in enumerate(one.heads, start=1):
            about = f"layer {one.name}, head {number}"
            yield (
                f'<figure><img alt="attention of {escape(about)}" style="--shape: {len(one.keys)} / '
                f'{len(one.queries)}" src="{_picture(grid)}">'
                f"<figcaption>head {number}, up to {max(map(max, grid)):.2g}</figcaption></figure>"
            )
        yield "</div>"


def _picture(grid: Grid) -> str:
    """A grid as a PNG in a URL: one colour, with an opacity in proportion to the weight. A pixel a cell."""
    largest = max(map(max, grid)) or 1.0
    rows = b"".join(b"\0" + bytes(round(255 * cell / largest) for cell in row) for row in grid)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", len(grid[0]), len(grid), 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(_INK) * 256),
        (b"tRNS", bytes(range(256))),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    ]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return "data:image/png;base64," + base64.b64encode(png).decode()
