"""Checkpoints that `save_pretrained` wrote: their weights, and what their loaders raise."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vista.errors import UserError, reason_of
from vista.foreign.weights import check_checkpoint

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")  # of a block in the name of a weight

# Only the fetch rules may use the network. Left out, trust_remote_code would be asked for on the
# terminal.
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


@contextmanager
def loading(failure: str, expected: str) -> Iterator[None]:
    """Turn what a foreign loader raises into a UserError: `failure` (reason); expected `expected`.

    Loaders that meet a damaged file raise anything, and ImportError where a file asks for a package
    that is not installed.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{failure} ({reason_of(error)}); expected {expected}") from error


def load_part(auto_class: Any, folder: Path | str, **options: Any) -> Any:
    """What a folder holds beside its weights: a config, a tokenizer or a processor.

    `auto_class` is a class of transformers with `from_pretrained`, which gets `options` too. What
    the library raises passes through.
    """
    local = _LOCAL
    _refuse_no_folder(folder)
    return auto_class.from_pretrained(str(folder), **local, **options)


def load_model(auto_class: Any, folder: Path | str, **options: Any) -> tuple[Any, list[str]]:
    """The model of a folder, and the names of weights of the model that its files lack, sorted.

    Args:
        auto_class: a class of transformers with `from_pretrained`.
        options: more arguments of `from_pretrained`.

    Raises:
        UserError: weights that are none, a missing package for quantised ones, weights of other
            shapes or of more blocks than the config says. What else the library raises passes
            through.
    """
    local = _LOCAL
    _refuse_no_folder(folder)
    check_checkpoint(Path(folder))
    model, report = auto_class.from_pretrained(
        str(folder),
        use_safetensors=True,  # no pickle
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported below, with both shapes
        **local,
        **options,
    )
    unfit = sorted(report["mismatched_keys"])
    if unfit:
        name, shape, expected = unfit[0]
        raise UserError(
            f"{folder}: {len(unfit)} weights do not fit its config.json ({name} is {list(shape)}, "
            f"expected {list(expected)}); fetch or save the checkpoint again"
        )
    kinds = {_NUMBER.sub("#", name) for name in model.state_dict()}
    surplus = [name for name in report["unexpected_keys"] if _NUMBER.sub("#", name) in kinds]
    if surplus:
        raise UserError(
            f"{folder}: its files hold more blocks than its config.json says ({min(surplus)}); "
            "correct config.json, or fetch the checkpoint again"
        )
    # Transformers fills missing weights with random numbers and only warns.
    return model, sorted(report["missing_keys"])


def _refuse_no_folder(folder: Path | str) -> None:
    # A name that is no folder would be looked up in the hub's cache of this machine.
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder} is not a folder")
