"""Base of the typed results of metrics."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from vista.metrics.figure import NO_TOKENS, Figure, finite_or_none


class Estimate(BaseModel):
    """One figure with its interval.

    One end is None where it is unbounded; both are where the figure is undefined (n = 0), or is of
    too few images (concepts, prompts, ...) for an interval.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: float | None = Field(description="The figure, or None if nothing could be measured.")
    ci_low: float | None = Field(None, description="Lower end of the interval over images.")
    ci_high: float | None = Field(None, description="Upper end of the interval over images.")
    chance: float | None = Field(None, description="Level of the same figure without the effect.")
    n: int = Field(description="Number of things that the figure is a mean over.")

    def figure(
        self,
        metric: str,
        layer: int | None = None,
        token_kind: str = NO_TOKENS,
        *,
        of: str | None = None,
        set: str | None = None,
        k: int | None = None,
        method: str | None = None,
    ) -> Figure:
        """Return this estimate as a figure of the long table; arguments as of `Figure`."""
        columns = self.model_dump()
        return Figure(
            metric, of, set, k, method=method, layer=layer, token_kind=token_kind, **columns
        )


def estimate(interval: tuple[float, float, float], n: int, chance: float | None = None) -> Estimate:
    """Build an `Estimate` from (value, low, high) of `rate_interval` or a bootstrap."""
    value, low, high = (finite_or_none(x) for x in interval)
    return Estimate(
        value=value,
        ci_low=low if value is not None else None,
        ci_high=high if value is not None else None,
        chance=finite_or_none(chance),
        n=int(n),
    )


class ResultPart(BaseModel):
    """Base of a part of a metric's result: a layer, a dictionary, a judge."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class MetricResult(ResultPart):
    """Base of every metric's result; written as result.json, its figures as rows.parquet."""

    def figures(self) -> list[Figure]:
        """Return the figures as rows of the long table, in a fixed order."""
        raise NotImplementedError
