"""One run: the task loop, its saved states, its evaluations, its result.

`raycl.engine.run` is the door and needs no torch until something must be computed.
"""
