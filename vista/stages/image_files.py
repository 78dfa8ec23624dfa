"""The files of the images that a job's records are about."""

from __future__ import annotations

from vista.data.images import ImageSource
from vista.data.source import images_root
from vista.engine.artifacts import Job


def image_files(job: Job) -> ImageSource:
    """Open the images of the input `records`: below `world` or `fetched`, or in the user's folder.

    Raises:
        UserError: The folder is not there.
    """
    world, fetched = job.optional("world"), job.optional("fetched")
    root = images_root(
        job.input("records").settings,
        world.path if world else None,
        fetched.store("data") if fetched else None,
    )
    return ImageSource(root)
