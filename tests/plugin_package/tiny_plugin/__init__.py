"""An encoder family, a judge and a metric for VISTA, each by its entry point in pyproject.toml."""
