"""The figures as Markdown, and their place in the model card."""

from __future__ import annotations

import math
from pathlib import Path

from torch import Tensor

from prep.codecs import CausalCodec
from shards.generations import atomic
from train.codec.score import MOST_RATIO, Figures, Table
from train.errors import TrainError

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
COLUMNS = (
    "log-mel",
    "STFT",
    "SI-SDR dB",
    "below 4 kHz",
    "onsets kept (added)",
    "pitches kept",
    "up to kHz",
    "side dB",
    "correlation",
)
MISSING = "n/a"


def markdown(tables: list[Table], codecs: dict[str, CausalCodec], seconds: float) -> str:
    """All tables, the gates of the first codec, and each codec's latents."""
    ours = next(iter(codecs))
    parts = [_about(label, codec) for label, codec in codecs.items()]
    parts.append(f"Up to {seconds:g} s from the middle of each mix.")
    parts += [_gates(tables, ours), *(_table(table) for table in tables), _latents(tables)]
    return "\n\n".join(parts) + "\n"


def write_card(path: Path, figures: str) -> None:
    """Put `figures` between the two marks of the card, and leave the rest. Raises TrainError where there are none."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise TrainError(
            f"{path} has no line {BEGIN} with a line {END} after it, between which the figures go. Add them."
        )
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    with atomic(path) as file:
        file.write(f"{before}{BEGIN}\n\n{figures}\n{after}".encode())


def _about(label: str, codec: CausalCodec) -> str:
    parameters = sum(p.numel() for p in codec.parameters())
    digest = codec.identity.weights[:16]
    return f"`{label}`: {parameters / 1e6:.1f} M parameters, {codec.config.dim} numbers a frame, weights `{digest}`."


def _gates(tables: list[Table], ours: str) -> str:
    lines = [f"| gates of `{ours}` | log-mel over best linear's, ≤ {MOST_RATIO} | SI-SDR dB | |", "|---|---|---|---|"]
    for table in tables:
        gate = table.gate(ours)
        least = "" if gate.least_si_sdr_db is None else f", ≥ {gate.least_si_sdr_db:g}"
        verdict = {True: "met", False: "**missed**", None: "no gate"}[gate.met]
        lines.append(f"| {table.corpus.label} | {gate.ratio:.3f} | {gate.si_sdr_db:.1f}{least} | {verdict} |")
    return "\n".join(lines)


def _table(table: Table) -> str:
    count = len(table.corpus.clips)
    rows = [f"| {label} | {_cells(figures)} |" for label, figures in table.rows.items()]
    own = f"| the original | {' | '.join([''] * 6)} | {table.own_bandwidth_hz / 1000:.1f} | | |"
    title = f"**{table.corpus.label}**: {count} {'mix' if count == 1 else 'mixes'}"
    if table.corpus.soundfont:
        title += f", {table.corpus.soundfont}"
    return "\n".join([title, "", *_header(COLUMNS), *rows, own])


def _header(columns: tuple[str, ...], corner: str = "") -> list[str]:
    return [f"| {corner} | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]


def _cells(figures: Figures | str) -> str:
    if isinstance(figures, str):
        return " | ".join([f"missing: {figures}"] + [MISSING] * 8)
    f = figures
    onsets = MISSING if math.isnan(f.onsets) else f"{f.onsets:.0%} ({f.onsets_added:.0%})"
    pitches = MISSING if math.isnan(f.pitches) else f"{f.pitches:.0%}"
    distances = f"{f.log_mel:.3f} | {f.stft:.2f} | {f.si_sdr_db:.1f} | {f.si_sdr_low_db:.1f}"
    return f"{distances} | {onsets} | {pitches} | {f.bandwidth_hz / 1000:.1f} | {f.side_db:.1f} | {f.correlation:.2f}"


def _latents(tables: list[Table]) -> str:
    lines = _header(("mean", "variance", "excess kurtosis", "correlation, absolute"), "latents")
    for table in tables:
        for label, s in table.latents.items():
            cells = " | ".join(_spread(x) for x in (s.mean, s.variance, s.kurtosis, s.correlation))
            lines.append(f"| {label} on {table.corpus.label} | {cells} |")
    return "\n".join(lines)


def _spread(values: Tensor) -> str:
    return f"{float(values.median()):.2f} ({float(values.min()):.2f} to {float(values.max()):.2f})"
