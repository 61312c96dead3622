"""Options of the whole suite, and one undisturbed run of the whole road for the tests that compare with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from project import Project
from s3_side import s3, s3_server  # noqa: F401 -- fixtures of every folder

import vitops  # noqa: F401 -- before any test imports timm: it declares what torchvision may lack

GOLDEN = Path(__file__).parent / "golden" / "data"


def pytest_addoption(parser):
    parser.addoption(
        "--golden-dir",
        default=str(GOLDEN),
        help="folder with <method>/*.npz golden vectors (default: tests/golden/data)",
    )
    parser.addoption(
        "--s3-endpoint",
        help="an S3 server with the access key 'test' and secret key 'testsecret' (default: moto's, started here)",
    )


@dataclass(frozen=True)
class Road:
    """A project in which the tiny pipeline ran undisturbed, first to the teacher and then to its end."""

    planned: dict[str, dict[str, Any]]
    begun: Project
    """A copy of the project as it was after the teacher."""
    first: dict[str, Any]
    """What the run to the teacher said."""
    project: Project
    document: dict[str, Any]
    """What the run to the end said."""


@pytest.fixture(scope="session")
def road(tmp_path_factory) -> Road:
    project = Project(tmp_path_factory.mktemp("road"), code=True)
    planned = project.plan()
    first = project.run("--until", "teacher")
    begun = project.copy(tmp_path_factory.mktemp("begun"))
    return Road(planned, begun, first, project, project.run())
