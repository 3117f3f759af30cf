"""An explanation as a page: the tokens in the colour of what they account for, and a picture of every attention."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator

from refllm.cells import cut, widest
from refllm.explain.explanation import AttentionMap, Explanation, Grid, LabelScores
from refllm.explain.figures import signed, told_change, told_missing
from refllm.page import escaped, table
from refllm.page import page as page_of_results

_INK = (59, 126, 246)  # of the attention maps: with opacity for weight it reads on white and on black
_CELL, _LETTER = 18, 8  # pixels of a cell of the large map, and of a letter beside it
_LONGEST = 24  # letters of a token beside the map

_STYLE = """
:root { --for: 37 99 235; --against: 217 119 6; }
.tokens { display: flex; flex-wrap: wrap; gap: .35rem .25rem; padding: 0; list-style: none; }
.tokens li { padding: .1rem .4rem .15rem; border-radius: .3rem; text-align: center; border: 1px solid var(--line);
  max-width: 100%; }
.tokens small { display: block; font-size: .75rem; font-variant-numeric: tabular-nums; }
.for { background: rgb(var(--for) / var(--share)); } .against { background: rgb(var(--against) / var(--share)); }
.scale { display: flex; align-items: center; gap: .6rem; flex-wrap: wrap; font-size: .875rem; }
.scale i { width: 9rem; height: .8rem; border-radius: .3rem; border: 1px solid var(--line);
  background: linear-gradient(to right, rgb(var(--against) / .6), transparent, rgb(var(--for) / .6)); }
.heads { display: grid; grid-template-columns: repeat(auto-fill, minmax(7rem, 1fr)); gap: .8rem; }
.heads figcaption { font-size: .8rem; font-weight: 400; }
figure img { width: 100%; aspect-ratio: var(--shape); image-rendering: pixelated; border: 1px solid var(--line); }
.wide svg { width: auto; max-width: none; } .wide svg text { fill: var(--ink); } .wide rect { stroke: var(--line); }
svg image { image-rendering: pixelated; }
"""


def page(found: Explanation, shown: tuple[str, AttentionMap, Grid] | None) -> str:
    """The page as text, in the style of the other reports; `shown` is the attention that is drawn large."""
    title = cut(" ".join(found.text.split()), 70)
    parts = list[str]()
    if found.probabilities is not None:
        parts.append(_probabilities(found.probabilities))
    if found.scores is not None:
        parts += _scores(found.tokens, found.scores)
    if shown is not None:
        parts += [*_large(*shown), *_small(found.maps)]
    return page_of_results(title or "An empty text", parts, style=_STYLE)


def _probabilities(probabilities: dict[str, float]) -> str:
    best_first = sorted(probabilities.items(), key=lambda item: -item[1])
    rows = [[escaped(label), f"{p:.4f}"] for label, p in best_first]
    return table(["label", "probability"], rows, about="probability of each label", numbers=[1])


def _scale(label: str, largest: float) -> str:
    return (
        f'<p class="scale" aria-hidden="true"><span>−{largest:.3g}, against {escaped(label)}</span><i></i>'
        f"<span>+{largest:.3g}, for {escaped(label)}</span></p>"
    )


def _scores(tokens: list[str], s: LabelScores) -> Iterator[str]:
    largest = max(map(abs, s.scores))
    steps = "" if s.steps is None else f" in {s.steps} steps"
    method = escaped(s.method.replace("-", " "))
    yield f"<h2>What each token accounts for in the {escaped(s.answer)} of {escaped(s.label)}</h2>"
    if largest:
        yield _scale(s.label, largest)
    yield '<ul class="tokens">'
    for token, score, number in zip(tokens, s.scores, signed(s.scores, fewest=3), strict=True):
        side, share = "against" if score < 0 else "for", 0.6 * abs(score) / (largest or 1.0)
        yield f'<li class="{side}" style="--share: {share:.3f}">{escaped(token)}<small>{number}</small></li>'
    yield "</ul>"
    (total,) = signed([sum(s.scores)], fewest=4, like=s.scores)
    yield (
        f'<p class="quiet">By {method} from the baseline <em>{escaped(s.baseline)}</em>{steps}. '
        f"{escaped(told_change(s))}. The tokens add up to {total}; {told_missing(s)}.</p>"
    )


def _large(name: str, one: AttentionMap, grid: Grid) -> Iterator[str]:
    """One grid with its tokens, and the same in words."""
    queries, keys = ([cut(token, _LONGEST) for token in tokens] for tokens in (one.queries, one.keys))
    left, top = (10 + _LETTER * widest(names) for names in (queries, keys))
    width, height = _CELL * len(one.keys), _CELL * len(one.queries)
    yield f"<h2>Attention: {escaped(name)}</h2>"
    yield (
        '<p class="quiet">A row is a token that looks, a column one that is looked at; the strongest cell is the '
        "largest weight. Weights say where a layer reads, not what the answer depends on.</p>"
    )
    yield '<div class="wide" tabindex="0" role="group" aria-label="attention map">'
    yield f'<svg role="img" aria-label="{escaped(name)}: its largest weights stand below as text" '
    yield f'width="{left + width + 4:.0f}" height="{top + height + 4:.0f}">'
    for i, token in enumerate(keys):
        x = left + _CELL * (i + 0.7)
        yield f'<text transform="translate({x:.1f} {top - 6:.1f}) rotate(-90)">{escaped(token)}</text>'
    for i, token in enumerate(queries):
        y = top + _CELL * (i + 0.7)
        yield f'<text x="{left - 6:.1f}" y="{y:.1f}" text-anchor="end">{escaped(token)}</text>'
    yield f'<image x="{left:.1f}" y="{top:.1f}" width="{width}" height="{height}" preserveAspectRatio="none" '
    yield f'href="{_picture(grid)}"/><rect x="{left:.1f}" y="{top:.1f}" width="{width}" height="{height}" '
    yield 'fill="none"/></svg></div>'
    rows = [[escaped(token), _largest(one.keys, row)] for token, row in zip(one.queries, grid, strict=True)]
    yield "<details><summary>The three largest weights of each token</summary>"
    yield table(["token", "where it looks"], rows, about="the three largest weights of each token")
    yield "</details>"


def _largest(keys: list[str], row: list[float]) -> str:
    best = sorted(range(len(row)), key=lambda s: -row[s])[:3]
    return ", ".join(f"{escaped(keys[s])} {row[s]:.3f}" for s in best if row[s] > 0)


def _small(maps: list[AttentionMap]) -> Iterator[str]:
    yield "<h2>Every layer and head</h2>"
    yield '<p class="quiet">In each map the strongest cell is its own largest weight, which stands under it.</p>'
    for one in maps:
        yield f'<h3>Layer {escaped(one.name)}</h3><div class="heads">'
        for number, grid in enumerate(one.heads, start=1):
            about = f"layer {one.name}, head {number}"
            yield (
                f'<figure><img alt="attention of {escaped(about)}" style="--shape: {len(one.keys)} / '
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
