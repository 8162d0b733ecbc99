"""The parts of `benchmarks/soak.py`: a bed of nodes, jobs to lie in it, faults, and the verdict."""
