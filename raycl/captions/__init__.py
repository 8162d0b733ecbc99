"""Captions instead of images: captioners, and the parallel captioning of classes.

Stands alone (`raycl caption`); the method `clts` keeps what is made here.
"""
