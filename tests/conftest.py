"""Options of the whole suite."""

from pathlib import Path

import vitops  # noqa: F401 -- before any test imports timm: it declares what torchvision may lack

GOLDEN = Path(__file__).parent / "golden" / "data"


def pytest_addoption(parser):
    parser.addoption(
        "--golden-dir",
        default=str(GOLDEN),
        help="folder with <method>/*.npz golden vectors (default: tests/golden/data)",
    )
