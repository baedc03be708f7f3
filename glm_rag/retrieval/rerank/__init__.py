"""Putting the first passages into a better order: one file per way, chosen by the factory."""
