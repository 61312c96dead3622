"""How the verbs let a user name an artifact: the first digits of its digest, or the stage that made it."""

from vitops.config.problems import did_you_mean
from vitops.errors import UsageError
from vitops.lineage.ledger import Ledger
from vitops.lineage.receipts import Receipt


def latest(ledger: Ledger, name: str) -> Receipt:
    """The latest receipt of ``PIPELINE/STAGE``. Raises UsageError, with the nearest name, where there is none."""
    found = None
    names = set()
    for receipt in ledger.entries():
        names.add(made := f"{receipt.pipeline}/{receipt.stage}")
        found = receipt if made == name else found
    if found is None:
        raise UsageError(f"nothing was made by '{name}'{did_you_mean(name, sorted(names))}")
    return found
