"""The image files of a table of records."""

from __future__ import annotations

from vista.data.images import ImageSource
from vista.data.source import images_root
from vista.engine.artifacts import Artifact


def image_files(records: Artifact, world: Artifact | None, fetched: Artifact | None) -> ImageSource:
    """Open the images of `records`: in `world` or `fetched`, else in the user's folder.

    Raises:
        UserError: The folder does not exist.
    """
    root = images_root(
        records.settings,
        world.path if world else None,
        fetched.store("data") if fetched else None,
    )
    return ImageSource(root)
