"""The projector: the only trained part between a frozen vision encoder and a frozen LLM."""
