from pathlib import Path

import pytest

from tests.prep.made import save_small_codec


@pytest.fixture
def codec(tmp_path: Path) -> str:
    return save_small_codec(tmp_path)
