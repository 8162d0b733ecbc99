"""Streams: a source of labelled vectors, ordered into tasks. No Ray.

`raycl.streams.content` names what a stream holds (digests) and needs no torch.
"""
