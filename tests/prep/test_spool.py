from pathlib import Path

import numpy as np
import pytest

from prep import spool as module
from prep.spool import Spool

AUDIO = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)


@pytest.mark.parametrize("held_bytes", [0, 5000, 10**9], ids=["file", "both", "memory"])
def test_what_goes_in_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_bytes: int) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", held_bytes)
    mono = np.broadcast_to(AUDIO[:1] * 2, AUDIO.shape)
    with Spool(2, 1000, tmp_path) as spool:
        for stem, audio in enumerate((AUDIO, mono, AUDIO[::-1])):
            spool.put(stem, audio)
        walked = list(spool.stretches([2, 0, 1, 1], 300))
        assert [part[0].shape for part in walked] == [(2, 300)] * 3 + [(2, 100)]
        for stem, audio in enumerate((AUDIO, mono, AUDIO[::-1])):
            np.testing.assert_array_equal(np.concatenate([part[stem] for part in walked], axis=1), audio)
        assert not list(tmp_path.iterdir())  # the file has no name, so that a killed process leaves none
        assert list(spool.stretches([], 300)) == []


def test_a_repeated_channel_is_held_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 4000)
    with Spool(2, 1000, tmp_path) as spool:
        spool.put(0, np.broadcast_to(AUDIO[:1], AUDIO.shape))
        assert spool._budget == 0 and not spool._places
        spool.put(1, AUDIO)
        assert list(spool._places) == [1]


def test_a_file_that_comes_up_short_is_no_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD_BYTES", 0)
    with Spool(2, 1000, tmp_path) as spool:
        spool.put(0, AUDIO)
        spool._file.truncate(5000)
        with pytest.raises(ValueError, match="cannot reshape"):
            list(spool.stretches([0], 400))
