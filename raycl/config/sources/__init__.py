"""Data sets by name: what each is, where it lies, how it is laid out. Data, not code.

`tables/NAME.yaml` holds one entry; `entry.py` says what may stand there. Needs no torch.
"""
