import os
import signal

import pytest
import torch

from prep.errors import PrepError
from prep.stages.render import library

# the tests' tensors are so small that threads cost more than they give, most of all on a busy machine
torch.set_num_threads(1)
# a shell that runs something in the background has it ignore Ctrl-C, which some tests press
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def fluidsynth() -> None:
    """Skips where the system lacks libfluidsynth; under CI=true that is a failure."""
    try:
        library()
    except PrepError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error))
