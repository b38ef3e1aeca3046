"""Simulations with a known truth: does each number that Steelyard prints keep its promise?"""
