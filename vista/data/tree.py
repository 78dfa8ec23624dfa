"""A walk through a folder of images: which files are data, and what is passed over."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from vista.data.images import ImageSource, is_hidden
from vista.data.skipped import HIDDEN, Skipped
from vista.errors import UserError, reason_of
from vista.foreign.text import escaped, one_line

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_OUTSIDE = "linked folder outside the folder of images"
_AGAIN = "linked folder that is read by another path"


def image_names(source: ImageSource, top: str, skipped: Skipped) -> list[str]:
    """The paths, relative to the root, of the images below the folder `top`, sorted.

    Linked folders are followed, after all others, so that each real folder is read once. Noted and
    left out are hidden images and folders, and linked folders that lead out of the root, upwards,
    or to a folder that was read. Raises UserError for a folder that cannot be listed and an image
    whose name is no Unicode text.
    """
    real_top = Path(os.path.realpath(source.root / top))
    images: list[str] = []
    read: set[Path] = set()
    folders = [str(PurePosixPath(top))]
    links: list[str] = []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)
        real = Path(os.path.realpath(source.root / folder))
        if not source.holds(folder):
            skipped.add(folder, folder, _OUTSIDE)
            continue
        if real in read or (real != real_top and real_top.is_relative_to(real)):
            skipped.add(folder, folder, _AGAIN)
            continue
        read.add(real)
        for entry in _entries(source.root / folder):
            name = entry.name if folder == "." else f"{folder}/{entry.name}"
            is_image = os.path.splitext(entry.name)[1].lower() in SUFFIXES
            is_folder = os.path.isdir(entry)
            if is_hidden(entry.name):
                if is_image or is_folder:
                    skipped.add(name, name, HIDDEN)
            elif is_folder:
                (links if entry.is_symlink() else folders).append(name)
            elif is_image:
                images.append(_checked(name, source.root))
    return sorted(images)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{one_line(folder)} cannot be listed: {reason_of(error)}") from error


def _checked(name: str, root: Path) -> str:
    if name != escaped(name):
        raise UserError(
            f"{one_line(escaped(str(root / name)))}: the name of this image is not UTF-8: rename "
            "it, for example with convmv"
        )
    return name
