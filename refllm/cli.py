"""The command line: `refllm COMMAND ...`.

A mistake of the user ends in one line on stderr and exit status 2, never in a traceback.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from typing import Any

import refllm
from refllm.backend import is_out_of_memory
from refllm.commands import (
    answer,
    chat,
    classify,
    compare,
    compress,
    generate,
    pretrain,
    score,
    summarise,
    train,
    translate,
    verify,
)
from refllm.errors import UserError

COMMANDS: dict[str, Any] = {
    "train": train,
    "pretrain": pretrain,
    "compare": compare,
    "generate": generate,
    "score": score,
    "classify": classify,
    "translate": translate,
    "summarise": summarise,
    "answer": answer,
    "chat": chat,
    "compress": compress,
    "verify": verify,
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="refllm", description="The executable specification of a language model.")
    top.add_argument("--version", action="version", version=f"refllm {refllm.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; its exit status."""
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what a terminal cannot show appears as its code
    try:
        return int(options.run(options))
    except UserError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("refllm: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has left, as in `refllm generate | head`
        sys.stderr.close()
        return 141  # as a shell says of a process that a closed pipe ended
    except OSError as error:
        return _refuse(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except Exception as error:
        if is_out_of_memory(error):
            return _refuse(f"out of memory ({error}); {COMMANDS[options.command].LESS_MEMORY}")
        raise


def _refuse(line: str) -> int:
    print(f"refllm: {' '.join(line.split())}", file=sys.stderr)
    return 2
