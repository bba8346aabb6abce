"""What the codec is given, stretch by stretch: the streams of an example, side by side, mixed from its stems."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from prep.spool import Audio, Spool
from prep.stages.mixing import Members, mix_audio

Item = TypeVar("Item")
Of = TypeVar("Of")
Pieces = Generator[tuple[Of, Audio], None, None]  # whose, and its next stretch: (channels, samples)
Lap = Callable[[str], None]

# pieces that wait for the encoder, where they are made ahead of it
AHEAD = 2


def mixed(
    wanted: Mapping[int, tuple[Members, float]], gains_db: list[float], spool: Spool, length: int, lap: Lap
) -> Pieces[int]:
    """The streams in `wanted` side by side, in stretches of `length`. Each has its members and, of a mix, the gain on
    their sum. Channels that are alike are one, repeated as a view.

    `lap` is told the name of each stage that has ended."""
    used = (i for members, _ in wanted.values() for i in members)
    for stems in spool.stretches(used, length):
        single = {i: audio[:1] for i, audio in stems.items() if audio.strides[0] == 0}
        lap("read")
        for number, (members, gain) in wanted.items():
            audio = mix_audio(single if single.keys() >= set(members) else stems, gains_db, members)
            if len(members) > 1:
                audio *= np.float32(10 ** (gain / 20))
            lap("mix")
            yield number, np.broadcast_to(audio, stems[members[0]].shape)


def ahead(items: Iterator[Item], skip: Callable[[], None]) -> Generator[Item, None, None]:
    """The same, each made in a thread while those before it are used; at most AHEAD of them wait.

    What is raised there is raised here. `skip` is called by either thread where it may have waited for the other. To be
    closed where it may be left early: then the thread has ended, and `items` may be closed."""

    def make() -> Item | None:
        skip()
        return next(items, None)

    with ThreadPoolExecutor(1, "ahead") as thread:
        waiting = deque(thread.submit(make) for _ in range(AHEAD))
        try:
            while item := waiting.popleft().result():
                waiting.append(thread.submit(make))
                skip()
                yield item
            skip()
        finally:
            thread.shutdown(cancel_futures=True)
