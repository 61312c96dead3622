"""Names that come from data, made safe to show: a class name or a path may hold anything a file system allows."""

_MARKDOWN = frozenset("\\`*_{}[]<>#|!~&")


def printable(text: str) -> str:
    """``text`` with control, format and other invisible characters as ``\\x1b``-like escapes.

    Terminal sequences and bidirectional overrides lose their power; letters of every script stay.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def markdown(text: str) -> str:
    """``printable`` text that Markdown shows literally, also inside a table cell."""
    return "".join(f"\\{char}" if char in _MARKDOWN else char for char in printable(text))
