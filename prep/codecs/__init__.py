"""Codecs: audio in, causal latents out, and back."""

from prep.codecs.causal import CausalCodec, CausalConfig
from prep.codecs.loading import CodecError, load_codec, save_codec
from prep.codecs.protocol import Codec, CodecIdentity, State

__all__ = ["CausalCodec", "CausalConfig", "Codec", "CodecError", "CodecIdentity", "State", "load_codec", "save_codec"]
