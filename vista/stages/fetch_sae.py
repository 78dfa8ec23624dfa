"""Stage: a published SAE's files, from its release's repository on the Hugging Face hub."""

from __future__ import annotations

from vista.config.base import Settings
from vista.config.published import SAE_BYTES
from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import text_sae_bytes
from vista.engine.job import NoInputs, StageJob, stage
from vista.engine.node import Node
from vista.errors import UserError
from vista.fetch.hub import fetch, pinned_listing
from vista.sae.releases import release_entry


class FetchSaeOrder(Settings):
    """An SAE of a release, at a revision of the release's repository."""

    release: str
    sae_id: str
    revision: str


@stage(FetchSaeOrder, NoInputs)
def run(job: StageJob[FetchSaeOrder, NoInputs]) -> None:
    """Write hub/, laid out like a Hugging Face cache of which `main` is the fetched commit, and
    source.json (repository, revision, commit).

    Raises UserError where release, SAE or its files do not exist, and as `fetch`.
    """
    release, sae_id = job.settings.release, job.settings.sae_id
    entry = release_entry(release, sae_id)
    listing = pinned_listing(entry.repo, job.settings.revision, job.work)
    for name in entry.required:
        if name not in listing.files:
            raise UserError(
                f"{entry.repo} has no {name} at {listing.commit}, which is SAE {sae_id} of "
                f"{release}; correct `sae_id` or `revision`"
            )
    optional = [name for name in entry.optional if name in listing.files]
    cache = job.work / "hub" / f"models--{entry.repo.replace('/', '--')}"
    fetch(listing, [*entry.required, *optional], cache / "snapshots" / listing.commit)
    (cache / "refs").mkdir(parents=True, exist_ok=True)
    (cache / "refs" / "main").write_text(listing.commit, encoding="utf-8")


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: encoder and decoder in the dtype of the release."""
    release = node.settings["release"]
    item = next((b for name, b in SAE_BYTES.items() if release.startswith(name)), None)
    return Need(disk=text_sae_bytes(shapes.imports.get(node.id), item, shapes), seconds=0.0)
