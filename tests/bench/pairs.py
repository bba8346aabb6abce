"""What 1, 2, 4 and 8 mixes a target give and cost: `python -m tests.bench.pairs`.

100 multitracks of 10 stems and 4 minutes, by the draws of a build with seed 0; for a dataset of your own, `prep mixes`.
"""

from __future__ import annotations

from functools import partial

from prep.draws import rng_for
from prep.pairs import Song, lines, pair_costs

SONGS, STEMS, SECONDS = 100, 10, 240
# float16 latents of dim 128, one for 4096 samples
BYTES_PER_SAMPLE = 2 * 128 / 4096


def main() -> None:
    names, all_of_them = tuple(f"S{i:02d}" for i in range(STEMS)), tuple(range(STEMS))
    songs = [Song(f"song{n:03d}", names, all_of_them, all_of_them, SECONDS * 44100) for n in range(SONGS)]
    for law in ("uniform", "coin", "all"):
        print(f"\nsize law {law}")
        print("\n".join(lines(pair_costs(songs, law, partial(rng_for, 0), BYTES_PER_SAMPLE))))


if __name__ == "__main__":
    main()
