"""Laws of the command reference: every command, verb and argument stands in it."""

from __future__ import annotations

import argparse

import pytest

pytest.importorskip("sphinx", reason="needs the extra docs: ./scripts/test --optional")
pytestmark = [
    pytest.mark.optional,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::PendingDeprecationWarning"),
]

from refllm import cli  # noqa: E402


def flags(parser: argparse.ArgumentParser) -> list[str]:
    """The longest name of every argument that the help shows."""
    found = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [flag for inner in action.choices.values() for flag in flags(inner)]
        elif action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction):
            found.append(max(action.option_strings, key=len) if action.option_strings else str(action.metavar))
    return found


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_argument_of_a_command_stands_in_the_reference(command: str) -> None:
    from book.directives.commands import parser_of, sections

    said = " ".join(node.astext() for node in sections(command, cli.COMMANDS[command]))
    for flag in flags(parser_of(command)):
        assert flag in said or flag == "None", flag


def test_a_flag_within_a_help_is_code() -> None:
    from book.directives.commands import with_flags

    assert [type(node).__name__ for node in with_flags("with --resume DIR")] == ["inline", "literal", "inline"]
