"""From a job's inputs to the frozen models that several stages need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vista.artifacts import Job
from vista.config.language import LanguageSettings

if TYPE_CHECKING:
    from vista.language.model import LanguageModel
    from vista.sae.neutral import SparseAutoencoder
