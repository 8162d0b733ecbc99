"""Reports over finished runs: leaderboards and comparisons. Reads results, trains nothing."""
