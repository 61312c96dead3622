"""One undisturbed run of the whole road, shared by the tests that compare with it."""

from dataclasses import dataclass
from typing import Any

import pytest
from project import Project


@dataclass(frozen=True)
class Road:
    """A project in which the tiny pipeline ran once, undisturbed, and what that run said."""

    project: Project
    planned: dict[str, dict[str, Any]]
    document: dict[str, Any]


@pytest.fixture(scope="session")
def road(tmp_path_factory) -> Road:
    project = Project(tmp_path_factory.mktemp("road"), code=True)
    planned = project.plan()
    return Road(project, planned, project.run())
