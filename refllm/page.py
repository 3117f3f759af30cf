"""Pages of results: one HTML file each, which opens from disk without a network and works without scripts.

What a page shows comes from names and texts that others wrote: all of it goes through `escaped`.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from refllm.errors import UserError

START = b"<!doctype html>"
_CONTROLS = {code: "\ufffd" for code in (*range(32), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"}

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #f3f4f6; --line: #c9ced6;
  --quiet: #56606c; --bad: #b42318; --good: #17693a; --link: #0b57d0;
  --c0: #1f5fbf; --c1: #b45309; --c2: #15803d; --c3: #a21caf; --c4: #b91c1c; --c5: #0e7490;
  --c6: #6d5b16; --c7: #5b5f66;
}
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #14171a; --soft: #22272c; --line: #47505a;
  --quiet: #a9b3be; --bad: #ff8a80; --good: #7bd89a; --link: #8ab4f8;
  --c0: #7fb0ff; --c1: #f5a94b; --c2: #6fd38d; --c3: #e879f9; --c4: #ff8a80; --c5: #5cd0e6;
  --c6: #d9c26a; --c7: #b8bdc4;
} }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, "Noto Sans CJK SC", sans-serif; color: var(--ink); background: var(--paper);
  max-width: 66rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
a { color: var(--link); } :focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.quiet { color: var(--quiet); } .bad { color: var(--bad); } .good { color: var(--good); }
.wide { overflow-x: auto; max-width: 100%; } table { border-collapse: collapse; }
th, td { padding: .3rem .9rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
.wide > table th, .wide > table td { overflow-wrap: normal; }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; } td.number { white-space: nowrap; }
pre { overflow-x: auto; margin: .5rem 0; padding: .7rem .8rem; background: var(--soft); font-size: .875rem;
  border-radius: .3rem; overflow-wrap: normal; }
pre.text { white-space: pre-wrap; overflow-wrap: anywhere; }
del, ins { text-decoration: none; display: inline-block; min-width: 100%; }
del { color: var(--bad); } ins { color: var(--good); }
summary { cursor: pointer; padding: .35rem 0; } details > :not(summary) { margin-left: 1rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.2rem; }
figure { margin: 0; min-width: 0; } figcaption { font-weight: 600; }
svg { display: block; width: 100%; height: auto; max-width: 30rem; }
svg text { font: 13px system-ui, sans-serif; fill: var(--quiet); } svg .axis { stroke: var(--line); }
svg .curve { fill: none; stroke-width: 2; stroke-linejoin: round; } svg rect.bar { fill: var(--c0); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; margin: .2rem 0; padding: 0; list-style: none; }
.legend svg { display: inline-block; width: 1.9rem; height: .6rem; margin-right: .35rem; }
@media (max-width: 30rem) { body { padding-top: .8rem; } h1 { font-size: 1.35rem; } details > :not(summary) {
  margin-left: 0; } }
@media print { body { max-width: none; } }
"""


def escaped(text: object) -> str:
    """Text that cannot become markup, nor end an attribute; what no page can hold becomes the sign of replacement."""
    return html.escape(str(text).translate(_CONTROLS).encode("utf-8", "replace").decode("utf-8"))


def page(title: str, parts: Iterable[str], *, style: str = "") -> str:
    """A whole page with its title as the first heading; `parts` are markup, the title is text."""
    return "\n".join(
        [
            START.decode(),
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escaped(title)}</title><style>{_STYLE}{style}</style></head>",
            f"<body><main><h1>{escaped(title)}</h1>",
            *parts,
            "</main></body></html>",
            "",
        ]
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, about: str, numbers: Iterable[int] = ()) -> str:
    """A table that scrolls by itself where the page is narrow, by keyboard too; cells are markup, heads and `about` are
    text. The columns of `numbers` stand to the right."""
    right = set(numbers)

    def cells(kind: str, texts: Sequence[str]) -> str:
        return "".join(
            f"<{kind}{' class=number' if i in right else ''}>{text}</{kind}>" for i, text in enumerate(texts)
        )

    body = "\n".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    head = cells("th", [escaped(text) for text in heads]).replace("<th", '<th scope="col"')
    return (
        f'<div class="wide" tabindex="0" role="group" aria-label="{escaped(about)}">'
        f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


def code(text: str, *, about: str, wrapped: bool = False) -> str:
    """Text as it stands, in a box that scrolls by itself."""
    return box(escaped(text), about=about, kind="text" if wrapped else "")


def box(markup: str, *, about: str, kind: str = "") -> str:
    """Lines as they stand, in a box that scrolls by itself, by keyboard too; of the kind `text` they are wrapped."""
    # a line break at the very beginning would not be shown
    return f'<pre class="{kind}" tabindex="0" role="group" aria-label="{escaped(about)}">\n{markup}</pre>'


def replace_page(path: Path, text: str) -> None:
    """Writes a page, whole or not at all. A page of ours that stands there is replaced.

    Raises: UserError for anything else that stands there.
    """
    replace(path, text.encode("utf-8", "replace"), START)


def replace(path: Path, content: bytes, start: bytes) -> None:
    """Writes a report, whole or not at all, in place of one that begins in the same way."""
    require_replaceable(path, start)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def require_replaceable(path: Path, start: bytes = START) -> None:
    """UserError if what stands at the path is the user's and no report."""
    if not path.exists():
        return
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(start)) == start:
                return
    raise UserError(f"{path} is there already and is no report; choose another name")
