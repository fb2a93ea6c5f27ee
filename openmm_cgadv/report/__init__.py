"""The report: assessment against tolerances, plots, the page and metrics.json."""
