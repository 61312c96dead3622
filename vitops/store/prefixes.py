"""Digests by their first digits, as people type them."""

import difflib
import re
from collections.abc import Iterable

from vitops.errors import UsageError

SHORTEST = 6


def resolve(prefix: str, digests: Iterable[str], *, what: str) -> str:
    """The one digest that begins with ``prefix``, 6 to 64 hex digits in lower case.

    ``what`` names the thing in messages. Raises UsageError when none or several do, with the nearest ones.
    """
    known = sorted(set(digests))
    if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},64}}", prefix):
        raise UsageError(f"{prefix!r} is no {what}: give {SHORTEST} to 64 hex digits of its digest, or PIPELINE/STAGE.")
    found = [digest for digest in known if digest.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{prefix!r} begins {len(found)} digests: {_listed(found, len(prefix))}. Give more digits.")
    near = _nearest(prefix, known)
    hint = f"Did you mean {_listed(near, len(prefix))}?" if near else "`vitops ls` lists what there is."
    raise UsageError(f"no {what} begins with {prefix!r}. {hint}")


def _nearest(prefix: str, known: list[str]) -> list[str]:
    heads = {digest[: len(prefix)]: digest for digest in known}
    return [heads[head] for head in difflib.get_close_matches(prefix, heads, n=3, cutoff=0.6)]


def _listed(digests: list[str], length: int) -> str:
    shown = [digest[: max(12, length + 2)] for digest in digests[:3]]
    return ", ".join(shown) + (", ..." if len(digests) > 3 else "")
