"""Small corpora and a small codec, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile as sf
import torch
import yaml

from prep.codecs import CausalCodec, CausalConfig, save_codec

RATE = 44100
PROGRAMS = (33, 0, 128, 48)  # bass, piano, drums, strings

SMALL = CausalConfig(
    wave_dim=6, envelope_dim=4, mels=20, encoder_width=8, encoder_blocks=1, decoder_width=8, decoder_blocks=1,
    sub_width=8, sub_blocks=1, phase_bins=16,
)  # fmt: skip


def small_codec(seed: int = 0) -> CausalCodec:
    torch.manual_seed(seed)
    return CausalCodec(SMALL).eval().requires_grad_(False)


def save_small_codec(folder: Path, seed: int = 0) -> str:
    """The spec that loads it."""
    path = folder / f"small-{seed}.safetensors"
    save_codec(small_codec(seed), path)
    return f"causal={path}"


def tone(number: int, seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    """A decaying tone twice a second, a pitch for each number."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = 110 * 2 ** (number * 5 / 12)
    return (0.3 * np.sin(2 * np.pi * pitch * time) * np.exp(-4 * (time % 0.5))).astype(np.float32)


def write_track(folder: Path, stems: dict[str, np.ndarray], rate: int = RATE, suffix: str = "flac") -> Path:
    """One Track folder as Slakh has it; programs are taken from PROGRAMS in turn."""
    (folder / "stems").mkdir(parents=True)
    entries = {}
    for number, (name, audio) in enumerate(stems.items()):
        subtype = "FLOAT" if suffix == "wav" else "PCM_16"
        sf.write(folder / "stems" / f"{name}.{suffix}", audio.T, rate, subtype=subtype)
        program = PROGRAMS[number % len(PROGRAMS)]
        entries[name] = {"program_num": program, "is_drum": program == 128, "plugin_name": "made.sf2"}
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"UUID": folder.name, "stems": entries}))
    return folder


def tones(track: int, stems: int = 4, seconds: float = 3.0, rate: int = RATE) -> dict[str, np.ndarray]:
    return {f"S{i:02d}": tone(track + i, seconds, rate) for i in range(stems)}


def write_corpus(root: Path, train: int = 2) -> Path:
    """`train` multitracks in train, one in validation, one in test."""
    for number in range(1, train + 3):
        split = "train" if number <= train else ("validation", "test")[number - train - 1]
        write_track(root / split / f"Track{number:05d}", tones(number, stems=3 + number % 2))
    return root
