"""Fitting: a generator per class, once per class, on as many workers as there are.

`raycl.fitting.identity` names what is stored and needs no torch.
"""
