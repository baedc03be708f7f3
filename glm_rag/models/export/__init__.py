"""Checkpoints in the forms that other engines read without code of ours."""
