"""What all packages share: schemas, token batches, work counters, config, progress, images."""
