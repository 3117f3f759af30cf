"""A page for every file of the text, line by line, so that a chapter can point to a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from book import text


def pages(app: Any) -> Iterator[tuple[str, dict[str, Any], str]]:
    """What Sphinx collects: name, context and template."""
    highlighter = app.builder.highlighter
    for module in text.modules():
        body = highlighter.highlight_block(text.source(module), "python", lineanchors="line", linenos=False)
        title = f"refllm/spec/{module}.py"
        yield f"text/{module}", {"title": title, "body": f"<h1>{title}</h1>\n{body}"}, "page.html"
