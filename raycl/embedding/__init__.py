"""Embedding: images and class names to vectors, once per source and backbone.

`raycl.embedding.identity` names what is stored and needs no torch.
"""
