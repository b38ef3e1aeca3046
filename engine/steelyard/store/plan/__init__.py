"""The plan on disk: pairs, buckets, manifest."""
