"""Linear probe: accuracy of a linear classifier of patch tokens."""

from __future__ import annotations

from pydantic import Field

from vista.config.data import Split
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings


class ProbeSettings(MetricSettings):
    """Accuracy with which a multinomial logistic regression tells the class of the object at a
    patch, on held-out images: a linear probe (Alain and Bengio, arXiv 1610.01644)."""

    split: Split = Field("train", description="Images that the probe is fitted on.")
    test_split: Split = Field("test", description="Images that it is judged on.")
    mask_cover: float = Field(
        0.5, gt=0, le=1, description="Share of a patch that an object must cover to name it."
    )
    max_patches: int = Field(8000, ge=1, description="Patches that the probe is fitted on.")
    regularisation: float = Field(0.3, gt=0, description="scikit-learn's C: smaller is stronger.")
    iterations: int = Field(60, ge=1, description="Iterations of the solver.")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="Intervals over images."
    )


METRIC = Metric(
    name="probe",
    makes="linear-probe patch accuracy of an encoder",
    settings=ProbeSettings,
    per="encoder",
    reads=("features", "records"),
    position=10,
    patches=True,
    message="probing the features of",
)
