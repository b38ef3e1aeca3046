"""Pure planning: prompt keys and deduplication."""
