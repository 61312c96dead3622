"""Options of the whole suite."""

from pathlib import Path

GOLDEN = Path(__file__).parent / "golden" / "data"


def pytest_addoption(parser):
    parser.addoption(
        "--golden-dir",
        default=str(GOLDEN),
        help="folder with <method>/*.npz golden vectors (default: tests/golden/data)",
    )
