"""A page for every file of the text, line by line, so that a chapter can point to a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from book import text


def _numbered(html: str) -> str:
    """Every line in a place of its own name, `line-7`."""
    head, pre, inside = html.partition("<pre>")
    lines = inside.split("\n")
    return (
        head
        + pre
        + "\n".join(f'<span id="line-{n}"></span>{line}' for n, line in enumerate(lines[:-1], 1))
        + ("\n" + lines[-1])
    )


def pages(app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """What Sphinx collects: name, context and template."""
    highlighter = app.builder.highlighter
    for module in text.modules():
        body = _numbered(highlighter.highlight_block(text.source(module), "python", linenos=False))
        title = f"refllm/spec/{module}.py"
        yield f"text/{module}", {"title": title, "body": f"<h1>{title}</h1>\n{body}"}, "page.html"
