"""What the commands on series share: options, and how they speak."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

HERE = "Where the run folders are; default: runs/."
Out = Annotated[Path, typer.Option("--out", "--runs", help=HERE, show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]


def printable(text: str) -> str:
    r"""The text with everything spelled that a terminal would obey instead of showing it.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def say(line: object) -> None:
    """Nothing; the line is written at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def say_aside(line: str) -> None:
    """Nothing; the line is written beside the output, where no program reads on."""
    sys.stdout.flush()
    sys.stderr.write(line + "\n")


def say_json(content: object) -> None:
    """Nothing; plain values as JSON."""
    say(json.dumps(content, indent=1, default=str))
