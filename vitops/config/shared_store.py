"""Where a store is shared: ``VITOPS_STORE=s3://bucket/prefix``, beside ``VITOPS_HOME``, which is then its cache.

Endpoint, region and credentials are boto3's own settings (AWS_ENDPOINT_URL, AWS_PROFILE and so on).
"""

import os
import re
from dataclasses import dataclass

from vitops.errors import UsageError

_URL = re.compile(r"s3://(?P<bucket>[A-Za-z0-9][A-Za-z0-9._-]{1,62})(?:/(?P<prefix>[A-Za-z0-9._=/-]*))?")
_GIB = 1 << 30
_DEFAULT_CACHE_GIB = "20"


@dataclass(frozen=True)
class BucketPlace:
    """A bucket, and the prefix below which the store lies in it, without slashes at its ends; may be empty."""

    bucket: str
    prefix: str


def shared_store() -> BucketPlace | None:
    """What ``VITOPS_STORE`` names; None if the store is the local folder alone. Raises UsageError."""
    chosen = os.environ.get("VITOPS_STORE")
    if not chosen:
        return None
    found = _URL.fullmatch(chosen)
    prefix = ((found and found["prefix"]) or "").removesuffix("/")
    if found is None or any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
        raise UsageError(  # the value is not shown: somebody may have written a password into it
            "VITOPS_STORE must read s3://BUCKET/PREFIX (letters, digits, and . _ - = in the prefix); "
            "credentials and endpoint go into AWS_PROFILE, AWS_ENDPOINT_URL and so on"
        )
    return BucketPlace(found["bucket"], prefix)


def cache_limit() -> int:
    """Bytes of a shared store that a home may keep: ``VITOPS_CACHE_GIB``, a number, 20 by default.

    Raises UsageError.
    """
    chosen = os.environ.get("VITOPS_CACHE_GIB") or _DEFAULT_CACHE_GIB
    try:
        limit = float(chosen) * _GIB
        if 0 <= limit < float("inf"):
            return int(limit)
    except ValueError:
        pass
    raise UsageError(
        f"VITOPS_CACHE_GIB is {chosen!r}: it must be a number of GiB, 0 or more, e.g. {_DEFAULT_CACHE_GIB}"
    )
