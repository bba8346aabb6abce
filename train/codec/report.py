"""The whole of `train codec-score`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from prep.codecs import CausalCodec, load_codec
from train.codec.card import markdown, write_card
from train.codec.corpora import read_corpus
from train.codec.picture import draw_spectrograms
from train.codec.score import score
from train.errors import TrainError


def report(data: Sequence[Path], specs: Sequence[str], seconds: float, card: Path | None, picture: Path | None) -> str:
    """The figures as Markdown; also into `card` and, as spectrograms of the first codec, `picture`, where given."""
    codecs = load_codecs(specs)
    ours = next(iter(codecs.values()))
    corpora = [read_corpus(path, ours.config.sample_rate, ours.config.hop, seconds) for path in data]
    with tqdm(total=len(corpora) * (len(codecs) + 6), unit="coder", disable=None) as bar:
        tables = [score(codecs, corpus, corpora, bar.update) for corpus in corpora]
    text = markdown(tables, codecs, seconds)
    if picture:
        draw_spectrograms(ours, corpora, picture)
    if card:
        write_card(card, text)
    return text


def load_codecs(specs: Sequence[str]) -> dict[str, CausalCodec]:
    """By label: the spec, or the name of its file.

    Raises TrainError where two have one label, where their frames differ, and for a codec that is none of ours.
    """
    codecs: dict[str, CausalCodec] = {}
    for spec in specs:
        label = Path(spec.partition("=")[2]).stem or spec
        if label in codecs:
            raise TrainError(f"two of --codec would be called {label} in the table. Rename one of the files.")
        codec = load_codec(spec)
        if not isinstance(codec, CausalCodec):
            raise TrainError(f"--codec {spec}: yardsticks are there for codecs of ours only, causal=FILE.safetensors.")
        codecs[label] = codec
    shapes = {label: (c.config.sample_rate, c.config.hop, c.config.dim) for label, c in codecs.items()}
    if len(set(shapes.values())) > 1:
        raise TrainError(f"--codec: rate, hop and dim differ, so that there is no common yardstick: {shapes}.")
    return codecs
