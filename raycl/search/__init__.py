"""Sweeps: many runs that share their work, chosen, compared and stopped by task.

`raycl.search.sweep` is the door. Ray and Optuna are imported when a sweep needs them.
"""
