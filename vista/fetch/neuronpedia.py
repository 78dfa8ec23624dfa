"""Neuronpedia's public export: a bucket of gzip JSON lines, listed as S3 does it.

The bucket holds `v1/MODEL/SOURCE/explanations/*.jsonl.gz` and `features/` beside it. It has no
versions: what was there is noted with its ETags.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree

import httpx2

from vista.errors import UserError
from vista.fetch.download import Checksum, Refused, RemoteFile, client, fetch_files, get, inside
from vista.fetch.source import write_source

BUCKET = "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com"
MIRROR = "VISTA_NEURONPEDIA_URL"  # environment: another place with the same listing and files
KINDS = ("explanations", "features")
_INSTEAD = "give a folder that holds the export with `path`"
_MD5 = re.compile(r"[0-9a-f]{32}")  # an ETag of this form is the MD5; of several parts it is not


def fetch_export(model: str, source: str, folder: Path, note: Path) -> None:
    """Fetch the export of one source into `folder`/explanations and `folder`/features; write what
    it consisted of to `note`.

    Raises UserError where there is none, the bucket cannot be reached, the disk is full or a file
    differs from the listing.
    """
    base = os.environ.get(MIRROR, BUCKET).rstrip("/")
    files, listed = [], {}
    with client() as http:
        try:
            for kind in KINDS:
                for key, size, etag in _objects(http, base, f"v1/{model}/{source}/{kind}/"):
                    name = key.rpartition("/")[2]
                    checksum = Checksum("md5", etag) if _MD5.fullmatch(etag) else None
                    target = inside(folder / kind, name)
                    files.append(RemoteFile(f"{base}/{quote(key)}", target, size, checksum))
                    listed[key] = {"bytes": size, "etag": etag}
            if (folder / KINDS[0]) not in {file.target.parent for file in files}:
                raise UserError(
                    f"Neuronpedia exports no explanations of {model}/{source}; take `model` and "
                    f"`source` from {BUCKET}/index.html?prefix=v1/"
                )
            fetch_files(http, files, f"{model}/{source}", _INSTEAD)
        except Refused as error:
            raise UserError(
                f"{base} refuses the export of {model}/{source} (HTTP status {error.status}); "
                f"{_INSTEAD}"
            ) from error
    write_source(note, {"files": listed, "model": model, "source": source})


def _objects(http: httpx2.Client, base: str, prefix: str) -> Iterator[tuple[str, int, str]]:
    """Yield key, size in bytes and ETag of each .jsonl.gz right below `prefix`, page by page."""
    params = {"list-type": "2", "prefix": prefix}
    while True:
        page = _parsed(get(http, f"{base}/", params, _INSTEAD), base)
        for entry in page.iterfind("{*}Contents"):
            key, size = entry.findtext("{*}Key", ""), entry.findtext("{*}Size", "")
            if not key.startswith(prefix) or not size.isdigit():
                raise _no_bucket(base)
            if key.endswith(".jsonl.gz") and "/" not in key[len(prefix) :]:
                yield key, int(size), entry.findtext("{*}ETag", "").strip('"')
        following = page.findtext("{*}NextContinuationToken")
        if page.findtext("{*}IsTruncated") != "true" or not following:
            return
        params["continuation-token"] = following


def _parsed(body: bytes, base: str) -> ElementTree.Element:
    try:
        # A listing declares no document type; one that does may blow up as its entities expand.
        if b"<!DOCTYPE" in body:
            raise ValueError("a document type")
        page = ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError) as error:
        raise _no_bucket(base) from error
    if page.tag.rpartition("}")[2] != "ListBucketResult":
        raise _no_bucket(base)
    return page


def _no_bucket(base: str) -> UserError:
    return UserError(
        f"{base} does not answer like a bucket; correct {MIRROR}, or log in to this network"
    )
