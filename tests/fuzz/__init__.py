"""What nobody meant to write, given to the real entry points in this process.

Anything that is not an answer, or a RayclError in words that help, is a bug. `make test` tries
a few dozen examples of each surface, always the same ones. `make ordeal` tries forty times as
many, new ones each time: `test_many.py` runs these files with RAYCL_FUZZ=40. Any other factor
works by hand: `RAYCL_FUZZ=5 python -m pytest tests/fuzz/test_config_files.py`.
"""
