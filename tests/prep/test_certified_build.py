"""No build without a certificate: what is refused, and when; what dataset.json holds; when it is measured again."""

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf
import torch
from click.testing import CliRunner, Result
from torch import Tensor

import shards
from prep.certify import VERSION
from prep.cli import main
from prep.codecs import CodecIdentity, State, load_codec
from prep.errors import PrepError
from prep.rebuild import rebuild
from tests.prep.built import files, run, work_here
from tests.prep.codecs import made
from tests.prep.made import RATE, save_small_codec, tone, write_corpus

HOP = 4096


def call(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def use(monkeypatch: pytest.MonkeyPatch, codec: made.Honest) -> None:
    work_here(monkeypatch)
    for place in ("prep.draft", "prep.certified", "prep.example"):
        monkeypatch.setattr(f"{place}.load_codec", lambda *_: codec)
    monkeypatch.setattr("prep.example._codec", lambda *_: codec)


def at_44100(kind: type[made.Honest], **claims: Any) -> made.Honest:
    return kind(sample_rate=RATE, hop=HOP, **claims)


def forbidden(*_: object) -> None:
    raise AssertionError("it is certified already")


def test_dataset_json_holds_codec_and_certificate(tmp_path: Path, codec: str) -> None:
    """All that reading and decoding the latents takes, but for the weights, of which it has the digest."""
    root = write_corpus(tmp_path / "corpus", train=1)
    report = run(root, tmp_path / "out", codec)
    index = shards.open(tmp_path / "out").index
    known = {key: value for key, value in index["codec"].items() if key != "frame_rate"}
    assert CodecIdentity(**known) == load_codec(codec).identity
    certificate = index["certificate"]
    assert certificate["ok"] and certificate["version"] == VERSION
    assert [each["ok"] for each in certificate["measurements"]] == [True] * 19
    assert all(each["value"] is None or isinstance(each["value"], int) for each in certificate["measurements"])
    assert "  codec causal: certified causal, 0 samples of delay beyond the frame" in report.lines()


@pytest.mark.parametrize("kind", [made.Glancing, made.Miscounting, made.Forgetful, made.Gossiping, made.Moody])
def test_a_cheat_is_refused_before_the_scan(
    tmp_path: Path, kind: type[made.Honest], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, at_44100(kind))
    with pytest.raises(PrepError, match=r"does not do what it says \(.* at most .* FAILED"):
        run(write_corpus(tmp_path / "corpus", train=1), tmp_path / "out", "causal")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_what_only_the_corpus_brings_out_is_refused_before_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OfMono(made.Glancing):
        """Hears a sample of the next frame where both channels are alike, as no made clip's are."""

        def encode_step(self, audio: Tensor, state: State) -> tuple[Tensor, State]:
            alike = torch.equal(audio[:, 0], audio[:, 1])
            return super().encode_step(audio, state) if alike else made.Honest.encode_step(self, audio, state)

    use(monkeypatch, at_44100(OfMono))
    with pytest.raises(PrepError, match="encode: chunked"):
        run(write_corpus(tmp_path / "corpus", train=1), tmp_path / "out", "causal")
    assert (tmp_path / "out/scan.parquet").exists() and not files(tmp_path / "out")


def test_a_codec_that_is_not_causal_is_used_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, at_44100(made.Glancing, causal=False))
    report = run(write_corpus(tmp_path / "corpus", train=1), tmp_path / "out", "causal")
    index = shards.open(tmp_path / "out").index
    assert index["codec"]["causal"] is False and index["certificate"]["ok"]
    told = next(line for line in report.lines() if "codec glancing" in line)
    assert "NOT causal. A frame hears 1 samples ahead and sounds 0 before itself" in told


def test_a_generation_is_certified_once(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = write_corpus(tmp_path / "corpus"), tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("prep.draft.build_examples", None)  # interrupted
        with pytest.raises(TypeError):
            run(root, out, codec)
    with monkeypatch.context() as patched:
        patched.setattr("prep.certified.one_threaded", forbidden)
        run(root, out, codec)
        assert run(root, out, codec).work is None
        with pytest.raises(AssertionError, match="certified already"):
            run(root, out, save_small_codec(tmp_path, seed=1))
    with monkeypatch.context() as patched:
        patched.setattr("prep.certified.VERSION", VERSION + 1)
        patched.setattr("prep.certified.one_threaded", forbidden)
        with pytest.raises(AssertionError, match="certified already"):
            run(root, out, codec)
    run(root, tmp_path / "fresh", codec, workers=2)
    assert files(tmp_path / "fresh") == files(out)


def test_a_rebuild_certifies_the_new_codec(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = write_corpus(tmp_path / "corpus", train=1), tmp_path / "out"
    run(root, out, codec)
    live = shards.current(out)
    use(monkeypatch, at_44100(made.Glancing))
    monkeypatch.setattr("prep.rebuild.load_codec", lambda spec: at_44100(made.Glancing))
    with pytest.raises(PrepError, match="encode: reaches ahead 1 samples at most 0 FAILED"):
        rebuild(out, root, "causal", workers=1, progress=False)
    assert shards.current(out) == live


def test_prep_certify(tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sf.write(tmp_path / "mono.wav", tone(1, 2.0, 22050), 22050)
    sf.write(tmp_path / "six.wav", [[0.1] * 6] * 900, RATE)
    done = call("certify", codec.removeprefix("codec="), "--audio", tmp_path / "mono.wav")
    assert done.exit_code == 0 and done.output.splitlines()[-1] == "certified"
    assert "another process differs" in done.output and "FAILED" not in done.output
    for words, message in (
        (("certify", "vorbis"), "codec 'vorbis' is unknown"),
        (("certify", codec, "--audio", tmp_path / "none.wav"), "none.wav: missing_audio"),
        (("certify", codec, "--audio", tmp_path / "six.wav"), "six.wav: channels (6 channels cannot become 2)"),
    ):
        told = call(*words)
        assert told.exit_code == 1 and message in told.output and told.output.count("\n") == 1
    use(monkeypatch, at_44100(made.Glancing))
    refused = call("certify", "causal")
    assert refused.exit_code == 1 and "FAILED" in refused.output and "refused" in refused.output.splitlines()[-1]


def test_what_stands_in_dataset_json_is_json(tmp_path: Path, codec: str) -> None:
    run(write_corpus(tmp_path / "corpus", train=1), tmp_path / "out", codec)
    text = next((tmp_path / "out").glob("generations/*/dataset.json")).read_text()
    assert json.loads(text)["certificate"]["measurements"][0]["name"] == "frames of a length"
