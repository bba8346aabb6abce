"""What of a multitrack is used, judged from its scan: which stems, which of them are targets, and what is heard.

Every file gets a verdict: a reason to leave it out, or none and perhaps a remark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prep.config import Loudness, PrepConfig
from prep.scan import ScanRow
from prep.stages.activity import FLOOR_DB, LEVELS_RATE_HZ, active, has_valid_window, is_silent
from prep.stages.loudness import SILENCE_LUFS, stem_gains_db

Verdicts = dict[str, tuple[str, str]]


@dataclass(frozen=True)
class Candidate:
    """One stream to be: one file, or several that are summed as audio."""

    name: str
    instrument: str
    rows: tuple[ScanRow, ...]

    @property
    def samples(self) -> int:
        return max(row.samples for row in self.rows)

    @property
    def lufs(self) -> float:
        """Of one file as measured; of several as if their powers added up."""
        if len(self.rows) == 1:
            return self.rows[0].loudness_lufs
        return max(SILENCE_LUFS, float(10 * np.log10(sum(10 ** (row.loudness_lufs / 10) for row in self.rows))))

    @property
    def levels_db(self) -> NDArray[np.float32]:
        """Of one file as measured; of several as if their powers added up. 50 Hz."""
        if len(self.rows) == 1:
            return self.rows[0].levels_db
        power = np.zeros(max(len(row.levels_db) for row in self.rows))
        for row in self.rows:
            levels = row.levels_db
            power[: len(levels)] += 10 ** (levels / 10)
        return np.asarray(10 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10))), np.float32)

    def peak(self, true: bool) -> float:
        """Of the samples, or between them; of several files at most this."""
        return sum(row.true_peak if true else row.peak for row in self.rows)

    def levels_after(self, gain_db: float, frames: int | None) -> NDArray[np.float32]:
        """The first `frames` levels (None: all) after a gain, which lifts no silence."""
        levels = self.levels_db[:frames]
        return np.where(levels > FLOOR_DB, levels + np.float32(gain_db), np.float32(FLOOR_DB))


@dataclass(frozen=True)
class Choice:
    """`sounding` (stems, frames): where each stem sounds, at 50 Hz; `samples` is the length of all streams."""

    stems: tuple[Candidate, ...]
    samples: int
    targets: tuple[int, ...]
    contexts: tuple[int, ...]
    sounding: NDArray[np.bool_]
    window_frames: int

    def heard_with_a_target(self, members: Sequence[int]) -> bool:
        """Whether a target outside `members` sounds together with them in half of some window."""
        heard = self.sounding[list(members)].any(axis=0)
        outside = (i for i in self.targets if i not in members)
        return any(has_valid_window(heard & self.sounding[i], self.window_frames) for i in outside)


def choose(group: list[ScanRow], config: PrepConfig, verdicts: Verdicts) -> Choice | None:
    """What is used of one multitrack; None where no pair can be made of it. Fills in `verdicts` by path."""
    kept = _audible(_stems(_allowed(group, config, verdicts), config), None, config, verdicts)
    trimmed = config.audio.unequal == "trim"
    samples, frames = ((min if trimmed else max)(lengths, default=0) for lengths in _lengths(kept))
    if trimmed:
        kept = _audible([stem for stem, _ in kept], frames, config, verdicts)
    sounding = np.zeros((len(kept), frames), np.bool_)
    for i, (stem, gain) in enumerate(kept):
        levels = stem.levels_after(gain, frames)
        sounding[i, : len(levels)] = active(levels, config.activity.threshold_db)
    stems = [stem for stem, _ in kept]
    contexts = [i for i, stem in enumerate(stems) if stem.instrument not in config.instruments.exclude_contexts]
    wanted = [i for i, stem in enumerate(stems) if stem.instrument not in config.instruments.exclude_targets]
    window = max(1, round(config.activity.window_s * LEVELS_RATE_HZ))
    targets = [i for i in wanted if _has_company(sounding, i, contexts, window)]
    reason = _unfit(stems, wanted, contexts, targets, config)
    for i, stem in enumerate(stems):
        lonely = i in wanted and i not in targets
        for row in stem.rows:
            verdicts[row.path] = reason or ("", _remark(row, samples, lonely))
    if reason:
        return None
    return Choice(tuple(stems), samples, tuple(targets), tuple(contexts), sounding, window)


def _allowed(group: list[ScanRow], config: PrepConfig, verdicts: Verdicts) -> list[ScanRow]:
    """What could be read and is of a class that is allowed."""
    allowed = []
    for row in group:
        if row.reason:
            verdicts[row.path] = (row.reason, row.detail)
        elif row.instrument not in config.instruments.allowed:
            verdicts[row.path] = ("class_not_allowed", f"{row.instrument} is not in instruments.allowed")
        else:
            allowed.append(row)
    return allowed


def _stems(rows: list[ScanRow], config: PrepConfig) -> list[Candidate]:
    """One a file, or one a class. What is Unknown is no class: it stays apart."""
    if config.instruments.group_by == "stem":
        return [Candidate(row.stem, row.instrument, (row,)) for row in rows]
    groups: dict[str, list[ScanRow]] = {}
    for row in rows:
        name = f"Unknown {row.stem}" if row.instrument == "Unknown" else row.instrument
        groups.setdefault(name, []).append(row)
    return [Candidate(name, members[0].instrument, tuple(members)) for name, members in groups.items()]


def _audible(
    stems: list[Candidate], frames: int | None, config: PrepConfig, verdicts: Verdicts
) -> list[tuple[Candidate, float]]:
    """The stems that sound for long enough after their gains, in their first `frames` or in all, and these gains."""
    activity, kept = config.activity, []
    for stem, gain in zip(stems, gains_of(stems, config.loudness), strict=True):
        if not is_silent(stem.levels_after(gain, frames), activity.threshold_db, activity.min_active_s):
            kept.append((stem, gain))
            continue
        least = f"sounds for less than {activity.min_active_s:g} s" if activity.min_active_s else "never sounds"
        trimmed = "" if frames is None else " before it is trimmed"
        verdicts.update({r.path: ("silent", f"{least} over {activity.threshold_db:g} dB{trimmed}") for r in stem.rows})
    return kept


def gains_of(stems: Sequence[Candidate], loudness: Loudness) -> list[float]:
    """Each stem's gain in dB by the policy: exact where it is one file."""
    measured = [stem.lufs for stem in stems], [stem.peak(loudness.true_peak) for stem in stems]
    return gains_by(loudness, *measured)


def gains_by(loudness: Loudness, lufs: Sequence[float], peaks: Sequence[float]) -> list[float]:
    """What the settings make of these measures."""
    limits = loudness.stem_lufs, loudness.max_gain_db, loudness.ceiling_db
    return stem_gains_db(lufs, peaks, loudness.policy, *limits)


def _lengths(kept: list[tuple[Candidate, float]]) -> tuple[list[int], list[int]]:
    """Of each stem in samples, and in levels."""
    return [stem.samples for stem, _ in kept], [len(stem.levels_db) for stem, _ in kept]


def _has_company(sounding: NDArray[np.bool_], target: int, contexts: list[int], window_frames: int) -> bool:
    """Whether the target and any of the other contexts sound together in half of some window."""
    others = [i for i in contexts if i != target]
    return has_valid_window(sounding[target] & sounding[others].any(axis=0), window_frames)


def _unfit(
    kept: list[Candidate], wanted: list[int], contexts: list[int], targets: list[int], config: PrepConfig
) -> tuple[str, str] | None:
    if len(kept) < 2:
        return ("too_few_stems", "a pair needs two stems that sound")
    if not wanted:
        return ("no_target", "every stem's class is in instruments.exclude_targets")
    if not any(set(contexts) - {i} for i in wanted):
        return ("no_context", "every other stem's class is in instruments.exclude_contexts")
    if not targets:
        detail = f"no two stems sound together in half of {config.activity.window_s:g} s (activity.window_s)"
        return ("no_valid_window", detail)
    return None


def _remark(row: ScanRow, samples: int, lonely: bool) -> str:
    """What was done to a file that is used."""
    remarks = []
    if row.samples != samples:
        remarks.append(f"{'padded' if row.samples < samples else 'trimmed'} from {row.samples} to {samples} samples")
    if lonely:
        remarks.append("never a target: no window in which it sounds together with another")
    return "; ".join(remarks)
