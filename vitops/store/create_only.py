"""Does an object server keep the condition that everything which is created once rests on?

Some take ``If-None-Match: *`` and overwrite all the same. There two machines would hold one claim, and of two receipts
with one number the first would be lost, all without an error. That two requests at the same moment are told apart as
well, only the server's makers can promise.
"""

import uuid
from pathlib import Path

from vitops.errors import VitopsError
from vitops.store import cache_file
from vitops.store.objects import Objects

_KEPT = {"create_only": True}


def require_create_only(objects: Objects, note: Path) -> None:
    """Create one object twice; the second time must fail. That it did is kept in ``note``, which may be lost.

    Raises VitopsError if it did not, or where the server does not answer.
    """
    if cache_file.load(note) == _KEPT:
        return
    name = f"probes/{uuid.uuid4().hex}"
    objects.create(name, b"first")
    overwritten = objects.create(name, b"second")
    objects.remove(name)
    if overwritten:
        raise VitopsError(
            f"{objects.url}: the server ignores `If-None-Match: *` and overwrites what is there, so runs on two "
            "machines would publish over each other. Nothing was written. Use a server that keeps the condition "
            "(Amazon S3 and Ceph's radosgw do), or unset VITOPS_STORE to work in a local folder."
        )
    cache_file.save(note, _KEPT)
