"""Steelyard's numerical kernels: pure functions over NumPy arrays."""
