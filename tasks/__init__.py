"""Prefect tasks, one file per stage: they move references between stages; the library does the work."""
