"""The vLLM engine: settings, process, request queue."""
