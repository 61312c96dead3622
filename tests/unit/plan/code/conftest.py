import textwrap

import pytest
from digests import FILES


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "pkg"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    return folder
