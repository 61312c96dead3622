"""What a verb writes: one document or one rendering on stdout, everything else on stderr.

Laws: with ``--json`` stdout holds one JSON document and nothing else; text from data is shown without its control
characters; a paragraph is never broken into lines unless a terminal shows it.
"""

import json
import shutil
import sys
import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vitops.packaging.text import printable

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 10_000
"""Columns where nobody looks: no line of a table or a tree breaks."""


def emit(document: Any, *, as_json: bool, render: "Callable[[Console], None]") -> None:
    """Print ``document`` as JSON, or whatever ``render`` prints on a rich console. Rich is imported only for that."""
    if as_json:
        sys.stdout.write(json.dumps(document, indent=1) + "\n")
        return
    render(console(sys.stdout))


def console(stream: Any) -> "Console":
    """A rich console on ``stream`` that reads no markup in what it prints and never breaks a line of a file or pipe."""
    from rich.console import Console

    return Console(file=stream, width=None if stream.isatty() else _WIDE, markup=False, highlight=False, emoji=False)


def complain(message: str) -> None:
    """One paragraph on stderr for each line of ``message``."""
    for paragraph in message.split("\n"):
        text = printable(paragraph)
        if sys.stderr.isatty():
            width = shutil.get_terminal_size().columns
            text = textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
        sys.stderr.write(text + "\n")
