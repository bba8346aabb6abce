"""The certificate: honest codecs get it, and every way to cheat is told by the line that it breaks."""

import json

import pytest
import torch

from prep.certified import accepted
from prep.certify import Certificate, Measurement, certify
from prep.codecs import decode_batch, encode_batch
from prep.errors import PrepError
from prep.probes import made_audio
from tests.prep.codecs import made
from tests.prep.codecs.made import HOP, Honest


def certified(codec: Honest) -> Certificate:
    return certify(codec, made_audio(codec.identity))


def measured(certificate: Certificate) -> dict[str, Measurement]:
    return {each.name: each for each in certificate.measurements}


def test_an_honest_codec_is_certified_and_measured() -> None:
    certificate = certified(Honest())
    assert not certificate.failed and accepted(certificate) is certificate
    found = measured(certificate)
    assert (found["encode: reaches back"].value, found["encode: reaches ahead"].value) == (HOP, 0)
    assert (found["decode: reaches back"].value, found["decode: reaches ahead"].value) == (HOP, 0)
    assert found["delay heard"].value == 0
    lines = certificate.lines()
    assert len(lines) == len(found) + 2 and "says it is causal" in lines[0] and lines[-1] == "certified"
    assert all(" ok" in line or " told" in line for line in lines[1:-1])


@pytest.mark.parametrize(
    ("codec", "name", "value"),
    [
        (made.Glancing(), "encode: reaches ahead", 1),
        (made.Glancing(), "encode: past changed", None),
        (made.Levelled(), "encode: past changed", None),
        (made.Foreboding(), "decode: reaches ahead", HOP),
        (made.Foreboding(), "decode: past changed", None),
        (made.Forgetful(), "encode: chunked", None),
        (made.Forgetful(), "encode: streamed", None),
        (made.Moody(), "changed when repeated", None),
        (made.Remembering(), "changed when repeated", None),
        (made.Overwriting(), "changed when repeated", None),
        (made.Gossiping(), "encode: batched", None),
        (made.Chattering(), "decode: batched", None),
        (made.Miscounting(), "frames of a length", 4),
        (made.Crashing(), "frames of a length", 1),
        (made.Short(), "samples of the frames", 13),
        (made.Dividing(), "unusable values", None),
        (made.Late(), "delay heard", 100),
        (made.Masking(), "encode: past after nan", None),
        (made.Tokens(codebook_size=8), "unusable values", None),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Honest) else None,
)
def test_a_cheat_is_told_by_its_line(codec: Honest, name: str, value: float | None) -> None:
    certificate = certified(codec)
    line = measured(certificate)[name]
    assert line in certificate.failed and "FAILED" in str(line)
    assert line.value > line.limit and (value is None or line.value == value)
    assert certificate.lines()[-1].startswith("refused") and not certificate.to_json()["ok"]
    number = f"{line.value:.0f} {line.unit}" if line.unit else ""
    with pytest.raises(PrepError, match=rf"codec {codec.identity.name} .*{name} {number}.* at most .* FAILED"):
        accepted(certificate)


def test_each_cheat_is_the_honest_codec_but_for_one_thing() -> None:
    """So the line that fails is due to that alone: these fail in no other group of lines."""
    only = {
        made.Gossiping(): {"encode: batched"},
        made.Chattering(): {"decode: batched"},
        made.Forgetful(): {"encode: chunked", "encode: streamed"},
        made.Late(): {"delay heard"},
        made.Masking(): {"encode: past after nan"},
    }
    for codec, names in only.items():
        assert {each.name for each in certified(codec).failed} == names


def test_no_claim_no_failure() -> None:
    """What is not said to be causal, purely convolutional or without delay need not be."""
    for codec in (made.Glancing(causal=False), made.Foreboding(causal=False), made.Late(delay_samples=100)):
        certificate = certified(codec)
        assert not certificate.failed, certificate.lines()
    assert measured(certified(made.Glancing(causal=False)))["encode: reaches ahead"].value == 1
    assert "says it is NOT causal" in certificate_head(made.Glancing(causal=False))
    masking = made.Masking()
    masking.convolutional = False
    assert not certified(masking).failed


def certificate_head(codec: Honest) -> str:
    return certified(codec).lines()[0]


def test_the_others_in_a_batch_count_without_causality_too() -> None:
    assert "encode: batched" in {each.name for each in certified(made.Gossiping(causal=False)).failed}
    assert not certified(made.Levelled(causal=False)).failed  # it hears padding, so lengths do not mix


def test_tokens() -> None:
    certificate = certified(made.Tokens())
    assert not certificate.failed and "tokens of 12 codebooks of 16" in certificate.lines()[0]
    with pytest.raises(PrepError, match="codebooks of 4096: shards hold float16"):
        accepted(certified(made.Tokens(codebook_size=4096)))


def test_what_is_stored_is_the_same_again_and_holds_no_rounding() -> None:
    one, two = (certified(Honest()).to_json() for _ in range(2))
    assert json.dumps(one) == json.dumps(two) and one["ok"]
    by_name = {each["name"]: each for each in one["measurements"]}
    assert by_name["encode: chunked"]["value"] is None and by_name["encode: chunked"]["limit"] == 1e-5
    assert by_name["encode: reaches back"]["value"] == HOP


def test_mixed_lengths_in_one_batch() -> None:
    lengths = [0, 1, HOP - 1, HOP, HOP + 1, 7 * HOP + 5, 3 * HOP]
    generator = torch.Generator().manual_seed(0)
    audio = [torch.randn(2, n, generator=generator) for n in lengths]
    for codec in (Honest(), made.Levelled(causal=False)):
        latents = encode_batch(codec, audio)
        decoded = decode_batch(codec, latents)
        for clip, each, sound in zip(audio, latents, decoded, strict=True):
            assert each.shape == (-(-clip.shape[1] // HOP), 12) and sound.shape == (2, len(each) * HOP)
            torch.testing.assert_close(each, codec.encode(clip[None])[0], atol=1e-6, rtol=0)
            torch.testing.assert_close(sound, codec.decode(each[None])[0], atol=1e-6, rtol=0)
    assert encode_batch(Honest(), []) == decode_batch(Honest(), []) == []
