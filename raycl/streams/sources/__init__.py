"""Data sets by name, as they lie on a disk: found, listed, checked, read, verified, fetched.

`raycl.config.sources` says what each should be; nothing here knows one of them by name.
"""
