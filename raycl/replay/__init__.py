"""The latent replay buffer: immutable shards in the object store, gathered by its readers.

Importing this package imports neither Ray nor torch.
"""
