"""Synthesis: images from prompts, by any text-to-image pipeline of diffusers, over the pool.

`raycl.synthesis.prompts` and `raycl.synthesis.identity` need no torch.
"""
