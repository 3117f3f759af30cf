"""`{commands}`: every command with its arguments, from the parsers of the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from docutils import nodes

from book.directives.directive import Directive, table
from refllm import cli


class Commands(Directive):
    """A section a command; of one with verbs, a section a verb within it."""

    def made(self) -> list[nodes.Node]:
        return [section for name, text in cli.COMMANDS.items() for section in sections(name, text)]


def parser_of(name: str) -> argparse.ArgumentParser:
    """The parser of one command, as `refllm NAME --help` asks it."""
    return _subparsers(cli.parser(name))[name]


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers within one: of the commands, or of a command's verbs."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def sections(name: str, text: str) -> Iterator[nodes.Node]:
    one = nodes.section(ids=[f"refllm-{name}"], names=[f"refllm {name}"])
    one += nodes.title("", f"refllm {name}")
    parser = parser_of(name)
    one += [*_described(parser, text)]
    for verb, inner in _subparsers(parser).items():
        part = nodes.section(ids=[f"refllm-{name}-{verb}"], names=[f"refllm {name} {verb}"])
        part += nodes.title("", f"refllm {name} {verb}")
        part += [*_described(inner, "")]
        one += part
    yield one


def _described(parser: argparse.ArgumentParser, text: str) -> Iterator[nodes.Node]:
    """What a command does, its examples, and its arguments by group."""
    says, _, examples = (parser.description or text).partition("\n\nexample")
    yield nodes.paragraph("", "", *with_flags(" ".join(says.split())))
    if lines := re.findall(r"refllm .*", examples):
        yield nodes.literal_block("", "\n".join(lines))
    for group in parser._action_groups:
        rows = [argument(action) for action in group._group_actions if shown(action)]
        if rows:
            if group.title not in ("positional arguments", "options", None):
                yield nodes.paragraph("", "", nodes.strong("", str(group.title).capitalize()))
            yield table(
                ["argument", "what it does"],
                [[nodes.literal("", name), with_flags(told)] for name, told in rows],
                [2, 5],
            )


def with_flags(words: str) -> list[nodes.Node]:
    """The words with the flags in them as code, whose dashes are no typography."""
    parts = re.split(r"(--[a-z][\w-]*)", words)
    return [nodes.literal("", part) if i % 2 else nodes.inline("", part) for i, part in enumerate(parts) if part]


def shown(action: argparse.Action) -> bool:
    hidden = (argparse._HelpAction, argparse._SubParsersAction)
    return action.help != argparse.SUPPRESS and not isinstance(action, hidden)


def argument(action: argparse.Action) -> tuple[str, str]:
    """Its flags with what stands behind them, and its help; choices are part of what is told."""
    value = action.metavar or action.dest.upper()
    name = value[0] if isinstance(value, tuple) else value
    forms = {"None": f" {name}", "?": f" [{name}]", "+": f" {name} ...", "*": f" [{name} ...]"}
    behind = forms.get(str(action.nargs), "")
    flags = ", ".join(action.option_strings)
    told = (action.help or "").replace("%%", "%")
    choices = [str(choice) for choice in action.choices or ()]
    if choices and not all(choice in told for choice in choices):
        told += f"{'; ' if told else ''}one of {', '.join(choices)}"
    return (flags + behind if flags else behind.strip()), told
