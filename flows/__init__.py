"""Prefect flows: the story of a run, one file per story."""
