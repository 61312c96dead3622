"""``golden_dir``, and one test case per golden file of a module's method.

A module names its ``METHOD`` and its ``PREFIXES``; a test marked ``golden("sam")`` runs with ``vectors`` once for each
file of DIR/METHOD that the prefix owns.
"""

from pathlib import Path

import pytest
from golden_files import Vectors, files


def pytest_configure(config):
    config.addinivalue_line("markers", "golden(prefix): run once per golden file that the prefix owns")


def _folder(config):
    return Path(config.getoption("--golden-dir")).absolute()


@pytest.fixture
def golden_dir(pytestconfig):
    return _folder(pytestconfig)


def pytest_generate_tests(metafunc):
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is not None:
        module = metafunc.module
        paths = files(_folder(metafunc.config) / module.METHOD, *marker.args, prefixes=module.PREFIXES)
        metafunc.parametrize("vectors", paths, indirect=True, ids=[path.stem for path in paths])


@pytest.fixture
def vectors(request):
    return Vectors(request.param)
