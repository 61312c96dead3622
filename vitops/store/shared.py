"""The shared side of a store, if the environment names one."""

from vitops.config.shared_store import shared_store
from vitops.store.objects import Objects


def shared_objects() -> Objects | None:
    """The objects that ``VITOPS_STORE`` names, no request made yet; None for a local store. Raises UsageError."""
    setting = shared_store()
    if setting is None:
        return None
    from vitops.store.s3 import S3Objects  # half a second of imports that a local store does without

    return S3Objects(setting.bucket, setting.prefix)
