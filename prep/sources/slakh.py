"""Slakh2100, BabySlakh, and corpora rendered in their layout (Manilow et al. 2019; FACTS 7).

    root/{train,validation,test,omitted}/TrackNNNNN/   or, flat,   root/TrackNNNNN/
        metadata.yaml   stems/S00.flac ...

The folder is believed: metadata's paths and its flags are wrong in places. Classes come by program number, and by
`inst_class` where that is unknown. A folder whose metadata says `rendition_of` is a rendition (`prep render`).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from prep.errors import PrepError, Reject
from prep.instruments import DRUMS, class_of_name, class_of_program
from prep.multitrack import MAX_ID, SPLITS, Multitrack, Stem
from prep.names import printable
from prep.stages.augment import Augmentation

Rejected = tuple[Path, Reject]

OMITTED = "omitted"
LICENCE = "CC BY 4.0"

# A suffix such as "_baby" keeps excerpts apart from the whole, and "_r1" renditions
_TRACK = re.compile(r"Track(\d{5})([_-]\w+)?", re.ASCII)
# FLAC first: where a stem is there twice, this one is taken
_AUDIO_SUFFIXES = (".flac", ".wav")
# Last id of each split of the original Slakh2100 (FACTS 7.2), for flat folders
_LAST_IDS = (("train", 1500), ("validation", 1875), ("test", 2100))
# Stems that hold white noise in Slakh2100 (FACTS 7.6)
_WHITE_NOISE = frozenset(
    [
        ("track00357", "S03"),
        ("track00377", "S07"),
        ("track00385", "S00"),
        ("track00398", "S00"),
        ("track00400", "S00"),
        ("track00629", "S01"),
        ("track00633", "S01"),
        ("track00749", "S01"),
        ("track01629", "S00"),
    ]
)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_slakh(root: Path, keep_white_noise: bool = False) -> tuple[list[Multitrack], list[Rejected]]:
    """Every multitrack below `root`, in order of id, and every path left out with its reason.

    Reads metadata and folders, no audio. `root` may also be one Track folder. Reject reasons: omitted,
    known_white_noise, bad_metadata, bad_name, duplicate_id, duplicate_stem, missing_audio, no_split, no_stems,
    rendition_not_train, unreadable, unsupported_format. Raises PrepError where there is nothing of Slakh at `root`.
    """
    multitracks: dict[str, Multitrack] = {}
    folders: dict[str, Path] = {}
    rejected: list[Rejected] = []
    for split, folder in _track_folders(root):
        found, left_out = _read_track(folder, split, keep_white_noise)
        rejected += left_out
        if isinstance(found, Multitrack) and found.id in folders:
            found = Reject("duplicate_id", f"{found.id} is there already, in {multitracks[found.id].split}")
        if isinstance(found, Multitrack):
            multitracks[found.id], folders[found.id] = found, folder
        else:
            rejected.append((folder, found))
    for id, split in _strayed(multitracks):
        del multitracks[id]
        rejected.append((folders[id], Reject("rendition_not_train", f"its original is in {split}")))
    return sorted(multitracks.values(), key=lambda multitrack: multitrack.id), rejected


def _strayed(multitracks: Mapping[str, Multitrack]) -> list[tuple[str, str]]:
    """(id, the original's split) of renditions whose original is not for training."""
    pairs = [(found.id, multitracks[found.original]) for found in multitracks.values() if found.original in multitracks]
    return [(id, original.split) for id, original in pairs if original.split != "train"]


def _track_folders(root: Path) -> list[tuple[str | None, Path]]:
    """(split or None where the layout is flat, Track folder), sorted."""
    looked_for = "looked for TrackNNNNN folders, there or in train/, validation/, test/"
    mend = "Set --root or $GREENROOM_DATA to a Slakh2100 or BabySlakh folder, or render one with `prep render`."
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise PrepError(f"Slakh root {root} {what}; {looked_for}. {mend}")
    if _TRACK.fullmatch(root.resolve().name) and (root / "metadata.yaml").exists():
        parent = root.resolve().parent.name
        return [(parent if parent in SPLITS else None, root)]
    folders: list[tuple[str | None, Path]] = [
        (split, folder) for split in (*SPLITS, OMITTED) for folder in _tracks_in(root / split)
    ]
    folders += [(None, folder) for folder in _tracks_in(root)]
    if not folders:
        there = sorted(path.name for path in root.iterdir())
        found = f"found {', '.join(there[:5])}{' ...' if len(there) > 5 else ''}" if there else "the folder is empty"
        raise PrepError(f"{root} is not Slakh: {looked_for}; {found}. {mend}")
    return folders


def _tracks_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    # a link to nothing is listed as what it is: a track whose metadata is missing
    return sorted(p for p in folder.iterdir() if _TRACK.fullmatch(p.name) and (p.is_dir() or p.is_symlink()))


def _read_track(folder: Path, split: str | None, keep_white_noise: bool) -> tuple[Multitrack | Reject, list[Rejected]]:
    if split == OMITTED:
        return Reject("omitted", "Slakh2100-redux leaves it out: its MIDI is there twice"), []
    # the name it has here, also where it is a link; only a root such as "." has none of its own
    name = folder.name if _TRACK.fullmatch(folder.name) else folder.resolve().name
    if len(name) > MAX_ID:
        return Reject("bad_name", f"{len(name)} characters; an id has at most {MAX_ID}"), []
    split = split or _original_split(name)
    if split is None:
        return Reject("no_split", f"{name} is none of Slakh's 1 to 2100; put it into train/, validation/ or test/"), []
    metadata = _read_metadata(folder / "metadata.yaml")
    if isinstance(metadata, Reject):
        return metadata, []
    made_of = _rendition(name, split, metadata)
    if isinstance(made_of, Reject):
        return made_of, []
    entries = metadata["stems"]
    files = _stem_files(folder / "stems")
    if isinstance(files, Reject):
        return files, []
    audio, rejected = files
    listed = {path.stem for path, reject in rejected if reject.reason == "missing_audio"}
    rejected += _missing(folder / "stems", entries, listed | set(audio))
    from_slakh = any(str(_field(entry, "plugin_name")).endswith(".nkm") for entry in entries.values())
    if from_slakh and not keep_white_noise:
        noise = [stem for stem in audio if (name.lower(), stem) in _WHITE_NOISE]
        rejected += [(audio.pop(stem), Reject("known_white_noise", "white noise in Slakh2100")) for stem in noise]
    if not audio:
        return Reject("no_stems", "no stem with audio is left"), rejected
    stems = tuple(_stem(stem, path, entries.get(stem)) for stem, path in sorted(audio.items()))
    licence = LICENCE if from_slakh else "unknown"
    return Multitrack(name.lower(), split, stems, "slakh", licence, *made_of), rejected


def _original_split(name: str) -> str | None:
    match = _TRACK.fullmatch(name)
    number = int(match[1]) if match else 0
    return next((split for split, last in _LAST_IDS if 1 <= number <= last), None)


def _rendition(name: str, split: str, metadata: Mapping[str, Any]) -> tuple[str, str] | Reject:
    """(the original's id, augmentation), as `Multitrack` has them; ("", "{}") for what is no rendition."""
    if "rendition_of" not in metadata:
        return "", "{}"
    original, text = metadata["rendition_of"], metadata.get("augmentation")
    if not isinstance(original, str) or not _TRACK.fullmatch(original) or original.lower() == name.lower():
        return Reject("bad_metadata", "rendition_of must name the TrackNNNNN that it is a rendition of")
    try:
        augmentation = Augmentation.from_json(text).to_json() if isinstance(text, str) else None
    except (ValueError, TypeError, RecursionError):
        augmentation = None
    if augmentation is None:
        return Reject("bad_metadata", "augmentation must say in JSON how the rendition was made")
    if split != "train":
        return Reject("rendition_not_train", f"a rendition in {split}; only multitracks for training have any")
    return original.lower(), augmentation


def _read_metadata(path: Path) -> dict[str, Any] | Reject:
    """The mapping, with a mapping "stems" in it whose keys are text."""
    if path.exists() and not path.is_file():  # a pipe would be waited for
        return Reject("unreadable", "metadata.yaml is not a file but a folder, a pipe or a device")
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return Reject("bad_metadata", "metadata.yaml is missing")
    except OSError as error:
        return Reject("unreadable", f"metadata.yaml: {error.strerror}")
    # In the 16 kHz archive some files begin with a character that does not belong there
    for attempt in (text, text[1:]):
        try:
            metadata = yaml.load(attempt, Loader=_Loader)
        except (yaml.YAMLError, ValueError):
            continue
        if isinstance(metadata, dict) and isinstance(metadata.get("stems"), dict):
            return {**metadata, "stems": {str(name): entry for name, entry in metadata["stems"].items()}}
    return Reject("bad_metadata", "metadata.yaml is not YAML with a mapping of stems")


def _stem_files(folder: Path) -> tuple[dict[str, Path], list[Rejected]] | Reject:
    """Audio files by stem name; hidden files (macOS's ._*) are none of the corpus."""
    try:
        shown = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        paths = [path for path in shown if path.exists() and not path.is_dir()]
        dangling = [path for path in shown if path.is_symlink() and not path.exists()]
    except FileNotFoundError:
        return {}, []
    except OSError as error:
        return Reject("unreadable", f"stems: {error.strerror}")
    audio: dict[str, Path] = {}
    rejected = [(_shown(path), Reject("missing_audio", "a link to nothing")) for path in dangling]
    misnamed = [path for path in paths if path != _shown(path)]
    rejected += [(_shown(path), Reject("bad_name", "the name is not UTF-8; rename it")) for path in misnamed]
    paths = [path for path in paths if path not in misnamed]
    for suffix in _AUDIO_SUFFIXES:
        for path in paths:
            if path.suffix.lower() == suffix and path.stem in audio:
                rejected.append((path, Reject("duplicate_stem", f"{audio[path.stem].name} is taken")))
            elif path.suffix.lower() == suffix:
                audio[path.stem] = path
    others = [path for path in paths if path.suffix.lower() not in _AUDIO_SUFFIXES]
    rejected += [(path, Reject("unsupported_format", "stems are FLAC or WAV")) for path in others]
    return audio, rejected


def _shown(path: Path) -> Path:
    return path.with_name(printable(path.name))


def _missing(folder: Path, entries: Mapping[str, Any], have: set[str]) -> list[Rejected]:
    """Stems that metadata calls rendered and that are not there; the others exist as MIDI only, as they should."""
    names = (name for name, entry in entries.items() if _field(entry, "audio_rendered") is True and name not in have)
    reject = Reject("missing_audio", "metadata.yaml says that it was rendered")
    return [(folder / f"{printable(name)}.flac", reject) for name in sorted(names)]


def _stem(name: str, path: Path, entry: object) -> Stem:
    program, named = _program(entry), _field(entry, "inst_class")
    by_name = program < 0 and isinstance(named, str)
    return Stem(name, path, program, class_of_name(named) if by_name else class_of_program(program))


def _program(entry: object) -> int:
    if _field(entry, "is_drum") is True:
        return DRUMS
    program = _field(entry, "program_num")
    # YAML's true is an int to Python
    known = isinstance(program, int) and not isinstance(program, bool) and 0 <= program <= DRUMS
    return program if known else -1


def _field(entry: object, name: str) -> Any:
    return entry.get(name) if isinstance(entry, dict) else None
