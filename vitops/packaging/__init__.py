"""The deliverable: a package folder that stands alone, its card, and prediction from it without torch."""
