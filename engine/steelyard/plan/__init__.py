"""Pure planning: prompt keys, deduplication, how a bucket is split."""
