"""A deterministic fault simulator: lives of a run on a disk and with an engine that fail."""
