"""A model folder: files and digests, tokenizer, chat format."""
