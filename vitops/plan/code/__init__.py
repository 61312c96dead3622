"""The code digest: which definitions a stage reaches, read from source without importing it."""
