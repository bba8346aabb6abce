"""What every codec offers, and the identity by which a dataset remembers the one that made it.

Audio is float32 (batch, channels, samples) at the codec's rate, latents are float32 (batch, frames, dim).
Streaming state is a value: passed in, handed back, never kept on the codec.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from torch import Tensor

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class CodecIdentity:
    """All that decides an encoding's numbers, up to the hardware."""

    name: str
    architecture: str  # digest of the architecture's settings and of the code's declared version
    weights: str  # sha256 of the weights: names, shapes, values
    dtype: str
    sample_rate: int
    channels: int
    hop: int  # samples a frame
    dim: int
    causal: bool
    delay_samples: int  # algorithmic delay beyond the frame itself

    @property
    def frame_rate(self) -> float:
        """Frames a second."""
        return self.sample_rate / self.hop

    @property
    def digest(self) -> str:
        """Eight hex digits for folder names: two codecs that differ anywhere differ here."""
        import hashlib
        import json

        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:8]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "frame_rate": self.frame_rate}


class Codec(Protocol):
    """Audio to latents and back, whole or frame by frame, with the same numbers."""

    @property
    def identity(self) -> CodecIdentity: ...

    def encode(self, audio: Tensor) -> Tensor:
        """(B, channels, samples) -> (B, ceil(samples / hop), dim); the tail is padded with zeros."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """(B, frames, dim) -> (B, channels, frames * hop)."""
        ...

    def encode_state(self, batch: int) -> State: ...

    def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, channels, k * hop) -> (B, k, dim) and the state after it."""
        ...

    def decode_state(self, batch: int) -> State: ...

    def decode_step(self, latents: Tensor, state: State) -> tuple[Tensor, State]:
        """(B, k, dim) -> (B, channels, k * hop) and the state after it."""
        ...
