"""Kernels measured in bundles: models written directly from keys, what to measure next, and the entries that come of it."""
