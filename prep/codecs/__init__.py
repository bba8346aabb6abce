"""Codecs: audio in, causal latents out, and back."""

from prep.codecs.causal import CausalCodec, CausalConfig
from prep.codecs.loading import CodecError, load_codec, save_codec
from prep.codecs.protocol import Codec, CodecIdentity, State, decode_batch, encode_batch

__all__ = [
    "CausalCodec",
    "CausalConfig",
    "Codec",
    "CodecError",
    "CodecIdentity",
    "State",
    "decode_batch",
    "encode_batch",
    "load_codec",
    "save_codec",
]
