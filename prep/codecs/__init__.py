"""Codecs: audio in, causal latents out, and back."""

from prep.codecs.causal import CausalCodec, CausalConfig
from prep.codecs.loading import load_codec, save_codec
from prep.codecs.pretrained import CodecError
from prep.codecs.protocol import Codec, CodecIdentity, State, decode_batch, encode_batch
from prep.codecs.streams import EncodeStream

__all__ = [
    "CausalCodec",
    "CausalConfig",
    "Codec",
    "CodecError",
    "CodecIdentity",
    "EncodeStream",
    "State",
    "decode_batch",
    "encode_batch",
    "load_codec",
    "save_codec",
]
