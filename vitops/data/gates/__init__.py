"""Quality gates: what a dataset version must satisfy before anything is trained on it."""
