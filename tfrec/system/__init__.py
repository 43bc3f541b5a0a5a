"""Files, locks, signals and the console: what knows nothing of recommenders."""
