"""Mathematics that several methods share. Knows tensors, not tasks or runs."""
