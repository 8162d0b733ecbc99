"""Frozen specs: what an experiment is, where it runs, and how both are read.

Nothing here imports torch, ray or pyarrow.
"""
