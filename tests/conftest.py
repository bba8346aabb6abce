import os

import pytest

from prep.errors import PrepError
from prep.stages.render import library


@pytest.fixture(scope="session")
def fluidsynth() -> None:
    """Skips where the system lacks libfluidsynth; under CI=true that is a failure."""
    try:
        library()
    except PrepError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
