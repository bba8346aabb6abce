"""How much memory a build of one long multitrack takes: `python -m tests.bench.memory --minutes 20 --stems 30`.

The stems are stereo FLACs whose channels are alike: a second of decaying tone, another for each stem, over and over.
Printed are the largest sum of resident memory over the build's processes, sampled ten times a second (pages that
processes share count for each), the largest single process as the kernel saw it, and the wall time. With
`--keep-audio` the build keeps every stream as FLAC, too.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import yaml

from tests.prep.made import PROGRAMS, RATE, tone


def write_multitrack(folder: Path, minutes: float, stems: int) -> None:
    """In Slakh's layout, written a second at a time."""
    (folder / "stems").mkdir(parents=True)
    entries = {}
    for number in range(stems):
        second = np.repeat(tone(number, 1.0)[:, None], 2, axis=1)
        path = folder / "stems" / f"S{number:02d}.flac"
        with soundfile.SoundFile(path, "w", RATE, channels=2, subtype="PCM_16") as file:
            for _ in range(round(60 * minutes)):
                file.write(second)
        program = PROGRAMS[number % len(PROGRAMS)]
        entries[path.stem] = {"program_num": program, "is_drum": program == 128, "plugin_name": "made.sf2"}
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"UUID": folder.name, "stems": entries}))


def resident_bytes(root: int) -> int:
    """Of the process and all below it; 0 where there is no /proc."""
    parents, sizes = {}, {}
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        except OSError:  # it ended meanwhile
            continue
        parents[int(fields["Pid"])] = int(fields["PPid"])
        sizes[int(fields["Pid"])] = 1024 * int(fields.get("VmRSS", "0 kB").split()[0])
    return sum(size for pid, size in sizes.items() if _is_below(pid, root, parents))


def _is_below(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid != root and pid in parents:
        pid = parents[pid]
    return pid == root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--stems", type=int, default=30)
    parser.add_argument("--set", action="append", default=[], help="a setting of the build, such as codec=causal")
    parser.add_argument("--keep-audio", action="store_true", help="the build keeps audio, too")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        write_multitrack(corpus / "train" / "Track00001", chosen.minutes, chosen.stems)
        words = ["build", "--dataset", "slakh", "--root", str(corpus), "--out", str(Path(folder) / "out")]
        kept = ["keep_audio=true"] if chosen.keep_audio else []
        settings = [word for setting in [*chosen.set, *kept] for word in ("--set", setting)]
        started, most = time.monotonic(), 0
        build = subprocess.Popen([sys.executable, "-m", "prep.cli", *words, "--workers", "1", *settings])
        while build.poll() is None:
            most = max(most, resident_bytes(build.pid))
            time.sleep(0.1)
        wall_s = time.monotonic() - started
    if build.returncode:
        sys.exit(f"the build failed with {build.returncode}")
    # in KiB; on macOS in bytes
    unit = 1 if sys.platform == "darwin" else 1024
    largest = unit * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"\n{chosen.stems} stems of {chosen.minutes:g} minutes: {most / 1e9:.2f} GB resident in all processes,")
    print(f"{largest / 1e9:.2f} GB in the largest, {wall_s:.0f} s")


if __name__ == "__main__":
    main()
