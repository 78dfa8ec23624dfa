"""Puts a judge's model where its settings say."""

from __future__ import annotations

from typing import Any

from vista.errors import UserError, reason_of


def on_device(model: Any, device: str) -> Any:
    """Return a torch model on a device, ready to be asked.

    Raises:
        UserError: This machine does not have the device, or too little memory on it.
    """
    try:
        return model.to(device).eval()
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"judge.device: {device} cannot be used ({reason_of(error)}); try cpu"
        ) from error
