"""What the metric asks for: latents of the images that the frequency mask is estimated on."""

from __future__ import annotations

from vista.metrics.mask_plan import masked_request

request = masked_request
