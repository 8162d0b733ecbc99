"""Finds the images of a folder whose sub-folders are classes. Opens none; needs no Pillow.

Two layouts: `train/CLASS/*`, `test/CLASS/*` and perhaps `val/CLASS/*`; or `CLASS/*`,
which `splitting.set_aside` cuts later. Guarantees an order that no file system moves,
and that whatever is left out is counted in a warning. No folder is followed further
than its class, so a link that leads back up ends there.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from raycl.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff")
SPLITS = {"train": "train", "test": "test", "val": "val", "validation": "val", "valid": "val"}
"""What a split may be called, and what it is called here."""

_FOLDERS_SEARCHED = 200


@dataclass(frozen=True)
class FoundImage:
    """One image: its path within the folder, its class, its split if the layout has any."""

    relative: str
    class_name: str
    split: str | None


@dataclass(frozen=True)
class Found:
    """The images of a folder in the order of their relative paths."""

    root: Path
    images: tuple[FoundImage, ...]
    warnings: tuple[str, ...]

    @property
    def name(self) -> str:
        return folder_name(self.root)

    @property
    def has_splits(self) -> bool:
        return self.images[0].split is not None


def folder_name(root: Path) -> str:
    """What a folder is called, also where it was written as `.`."""
    return _readable(root.resolve().name) or "folder"


def find_images(root: Path) -> Found:
    """All images in the classes of a folder; a DataError where it is no such folder."""
    left_out: Counter[str] = Counter()
    try:
        images = sorted(_walk(root, left_out), key=lambda image: image.relative)
    except OSError as error:
        raise DataError(
            f"a folder cannot be read: {error.strerror}", got=str(error.filename or root)
        ) from error
    if not images:
        raise _nothing_found(root, left_out)
    found = Found(root, tuple(images), tuple(_told(root, left_out)))
    if found.has_splits:
        _refuse_missing_split(found)
    return found


def _walk(root: Path, left_out: Counter[str]) -> Iterator[FoundImage]:
    tops = _folders(root, left_out)
    if not any(SPLITS.get(top.lower()) == "train" and _holds_folders(root / top) for top in tops):
        for top in tops:
            yield from _class_images(root, top, None, left_out)
        return
    for top in tops:
        split = SPLITS.get(top.lower())
        if split is None:
            left_out["a folder beside train and test"] += 1
            continue
        for name in _folders(root / top, left_out):
            yield from _class_images(root, f"{top}/{name}", split, left_out)


def _class_images(
    root: Path, folder: str, split: str | None, left_out: Counter[str]
) -> Iterator[FoundImage]:
    class_name = _class_name(folder.rpartition("/")[2])
    images = []
    for entry in _visible(root / folder, left_out):
        if _is_image(entry):
            images.append(FoundImage(f"{folder}/{entry.name}", class_name, split))
        else:
            stray = "a folder within a class" if _is_folder(entry) else _kind_of_stray(entry)
            left_out[stray] += 1
    left_out["a class folder without images"] += not images
    yield from images


def _folders(root: Path, left_out: Counter[str]) -> list[str]:
    """The names of the visible folders in a folder; what else lies there is counted."""
    names = []
    for entry in _visible(root, left_out):
        if _is_folder(entry):
            names.append(entry.name)
        else:
            stray = "an image outside of a class" if _is_image(entry) else _kind_of_stray(entry)
            left_out[stray] += 1
    return sorted(names)


def _visible(folder: Path, left_out: Counter[str]) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        found = list(entries)
    visible = [entry for entry in found if not entry.name.startswith(".")]
    left_out["a hidden entry"] += len(found) - len(visible)
    return visible


def _holds_folders(folder: Path) -> bool:
    """A split, not a class that happens to be called train."""
    entries = _visible(folder, Counter())
    return any(map(_is_folder, entries)) and not any(map(_is_image, entries))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a ring
        return False


def _is_image(entry: os.DirEntry[str]) -> bool:
    """A plain file with an image's ending: a pipe of that name would wait for ever."""
    try:
        return entry.name.lower().endswith(SUFFIXES) and entry.is_file()
    except OSError:
        return False


def _kind_of_stray(entry: os.DirEntry[str]) -> str:
    named_so = entry.name.lower().endswith(SUFFIXES)
    return "an image that is no file or leads nowhere" if named_so else "a file that is no image"


def _class_name(folder: str) -> str:
    return _readable(folder.replace("_", " ").strip()) or _readable(folder)


def _readable(name: str) -> str:
    """A name of bytes that are no text, as text that can be printed and stored."""
    return os.fsencode(name).decode("utf-8", "replace")


def _told(root: Path, left_out: Counter[str]) -> Iterator[str]:
    counts = {what: n for what, n in left_out.items() if n}
    if counts:
        listed = ", ".join(f"{what} ({n}×)" for what, n in sorted(counts.items()))
        yield f"{folder_name(root)}: left out were {listed}"


def _nothing_found(root: Path, left_out: Counter[str]) -> DataError:
    told = list(_told(root, left_out))
    deeper = _deeper_image(root)
    if deeper is not None:
        do = f"images lie deeper, such as {deeper}: name the folder whose folders are the classes"
    elif left_out["an image outside of a class"]:
        do = "put the images of each class into a folder that has the name of the class"
    else:
        do = f"images end in {', '.join(SUFFIXES)} and lie in a folder per class"
    what = "the folder is empty" if not told else "no class in the folder has an image"
    got = f"{root}: {told[0].partition(': ')[2]}" if told else str(root)
    return DataError(what, got=got, do=do)


def _deeper_image(root: Path) -> str | None:
    """An image somewhere below the classes, for the hint; the search is short."""
    waiting = deque([root])
    for _ in range(_FOLDERS_SEARCHED):
        folder = waiting.popleft() if waiting else None
        if folder is None:
            return None
        with contextlib.suppress(OSError):
            for entry in _visible(folder, Counter()):
                if _is_image(entry) and folder != root:
                    return str(Path(entry.path).relative_to(root))
                if _is_folder(entry) and not entry.is_symlink():
                    waiting.append(Path(entry.path))
    return None


def _refuse_missing_split(found: Found) -> None:
    if any(image.split == "test" for image in found.images):
        return
    train = found.images[0].relative if found.images[0].split == "train" else "train"
    train = train.partition("/")[0]
    raise DataError(
        "the folder has training images and no test images",
        got=str(found.root),
        do=f"add a folder test beside {train}, or name {found.root / train} itself "
        "to have a share of each class set aside",
    )
