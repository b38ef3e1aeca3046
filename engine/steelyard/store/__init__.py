"""The run directory: paths, lock, run record, durable writes."""
