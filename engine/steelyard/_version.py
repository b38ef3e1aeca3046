"""The version alone, so that no module has to import a package above it to read it."""

__version__ = "0.1.0"
