"""Builds that are killed again and again end as those that are not: `python -m tests.bench.kills --kills 50`.

Composed songs are rendered, and built once in peace. Then the same build is started, hit by SIGKILL at a drawn moment,
and started again, until it ends; whatever lies in OUT is compared. Most kills hit the whole process group; every fourth
one process below the build, which must end then by itself, with its error or its dataset.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from prep.compose import compose
from prep.render import render_corpus
from tests.prep.made import save_small_codec

HUNG_S = 300.0


def contents(out: Path) -> dict[str, bytes]:
    """Every file of OUT but the lock; of scan.parquet its rows."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != ".lock")
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in files}
    found["scan.parquet"] = repr(pd.read_parquet(out / "scan.parquet").to_dict("records")).encode()
    return found


def session_of(leader: int) -> list[int]:
    """The processes of a session that are still there."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return sorted(found)


def is_empty(leader: int, within_s: float = HUNG_S) -> bool:
    """Whether the session's processes end by themselves."""
    deadline = time.monotonic() + within_s
    while session_of(leader) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not session_of(leader)


@dataclass
class Trial:
    """One command, disturbed by draws from `rng`; `tally` counts what the kills hit, `wrong` says what must not be."""

    command: list[str]  # without --out
    out: Path
    rng: np.random.Generator
    start_s: float = 0.0
    work_s: float = 0.0
    tally: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def start(self) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "prep.cli", "build", *self.command, "--out", str(self.out)]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(words, start_new_session=True, **pipes)  # type: ignore[call-overload, no-any-return]

    def measure(self) -> None:
        """Runs it in peace; notes how long it takes to begin and to work."""
        started = time.monotonic()
        with self.start() as process:
            self._wait_for_work(process)
            self.start_s = time.monotonic() - started
            _, told = process.communicate()
        self.work_s = time.monotonic() - started - self.start_s
        if process.returncode:
            raise RuntimeError(told)

    def disturb(self) -> bool:
        """Starts the build and kills it; whether it ended before that."""
        with self.start() as process:
            if self.rng.random() < 0.2:
                moment_s = self.rng.uniform(0, self.start_s)
            else:
                moment_s = self.rng.uniform(0, self.work_s)
                self._wait_for_work(process)
            try:
                process.wait(moment_s)
            except subprocess.TimeoutExpired:
                single = self.rng.random() < 0.25
                self._kill_one(process) if single else self._kill_all(process)
                process.stderr.read() if process.stderr else None
            if not is_empty(process.pid):
                self.wrong.append(f"processes left: {session_of(process.pid)}")
        return process.returncode == 0

    def finish(self) -> None:
        with self.start() as process:
            _, told = process.communicate()
        if process.returncode:
            self.wrong.append(f"ended with {process.returncode}: {told}")

    def _kill_all(self, process: subprocess.Popen[str]) -> None:
        self.tally[f"all processes, {self._where()}"] += 1
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _kill_one(self, process: subprocess.Popen[str]) -> None:
        below = [pid for pid in session_of(process.pid) if pid != process.pid]
        if not below:
            return self._kill_all(process)
        self.tally[f"one process, {self._where()}"] += 1
        try:
            os.kill(below[self.rng.integers(len(below))], signal.SIGKILL)
            process.wait(HUNG_S)
        except ProcessLookupError:
            process.wait(HUNG_S)
        except subprocess.TimeoutExpired:
            self.wrong.append("hung after one of its processes was killed")
            process.kill()
        if process.returncode not in (0, 1):
            self.wrong.append(f"ended with {process.returncode} after one of its processes was killed")
        return None

    def _where(self) -> str:
        if not (self.out / ".lock").exists():
            return "starting"
        if not list(self.out.glob("generations/*")):
            return "scanning"
        return "ending" if list(self.out.glob("generations/*/dataset.json")) else "building"

    def _wait_for_work(self, process: subprocess.Popen[str]) -> None:
        """Until the lock names the process."""
        lock = self.out / ".lock"
        while process.poll() is None:
            if lock.exists() and lock.read_text().startswith(f"process {process.pid} "):
                return
            time.sleep(0.005)


def disturbed(trial: Trial, kills: int, whole: dict[str, bytes], folder: Path) -> int:
    """Builds and kills until so many have hit; how many builds came to their end. What differs goes to `wrong`."""
    builds = 0
    while True:
        trial.out = folder / f"out-{builds}"
        while sum(trial.tally.values()) < kills and not trial.disturb():
            pass
        trial.finish()
        builds += 1
        found = contents(trial.out)
        if differ := sorted(name for name in whole.keys() | found.keys() if whole.get(name) != found.get(name)):
            trial.wrong.append(f"build {builds} differs in {', '.join(differ)}")
        if sum(trial.tally.values()) >= kills:
            return builds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--songs", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--codec", help="by default a small one, made here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compose(folder / "midi", chosen.songs, 3, short=True)
        render_corpus(folder / "midi", folder / "corpus", workers=chosen.workers, progress=False)
        codec = chosen.codec or save_small_codec(folder)
        settings = ["--set", f"codec={codec}", "--set", "shards.size_mb=0.1", "--workers", str(chosen.workers)]
        command = ["--dataset", "slakh", "--root", str(folder / "corpus"), *settings]
        trial = Trial(command, folder / "whole", np.random.default_rng(chosen.seed))
        trial.measure()
        whole = contents(trial.out)
        shards = sum(name.endswith(".tar") for name in whole)
        print(f"undisturbed: {trial.start_s:.1f} s to begin, {trial.work_s:.1f} s of work, {shards} shards", flush=True)
        builds = disturbed(trial, chosen.kills, whole, folder)
    for what, times in sorted(trial.tally.items()):
        print(f"{times:>5} x SIGKILL to {what}")
    print(f"{builds} builds came to their end; {len(trial.wrong)} faults")
    sys.exit("\n".join(trial.wrong) or None)


if __name__ == "__main__":
    main()
