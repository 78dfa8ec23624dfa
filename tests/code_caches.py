"""The caches of the code digests, for tests that edit code."""

from __future__ import annotations

from vista.engine import code


def forget() -> None:
    """Have the next digest read the code again."""
    for function in (
        *(code._closure, code._closure_digest, code._definition, code._module, code._path),
        code.stage_module,
    ):
        function.cache_clear()
