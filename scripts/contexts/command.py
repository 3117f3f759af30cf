"""The command line of scripts/context: measures, prints a table, writes JSON and a plot."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from contexts import beyond, memory
from libraries import require_plotting
from refllm.directory import require_free
from refllm.errors import UserError
from refllm.pictures import require_free_pictures, save_pictures


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/context", description="What long contexts cost, and beyond them.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in (("memory", memory), ("beyond", beyond)):
        command = commands.add_parser(name, help=module.HELP)
        module.add_arguments(command)
        command.add_argument("--json", type=Path, metavar="FILE", help="the figures as JSON")
        command.add_argument(
            "--plot", type=Path, metavar="FILE", help="the picture, as PNG and as SVG (needs matplotlib)"
        )
        command.set_defaults(module=module)
    options = parser.parse_args()
    try:
        if options.json:
            require_free(options.json)
        if options.plot:
            require_free_pictures(options.plot)
    except UserError as error:
        parser.error(str(error))
    require_plotting(parser, options.plot)
    rows: list[dict[str, Any]] = options.module.measure(options)
    print(options.module.table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    if options.plot:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4.2), layout="constrained")
        options.module.draw(figure, rows)
        save_pictures(figure, options.plot)
    return 0
