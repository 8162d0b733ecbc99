"""Accuracy matrices from stored predictions, and one definition of each metric over them.

The doors: `predictions.StagePredictions` and `predictions.rank` for who predicts,
`evaluation.evaluate` for who reports, `comparison.compare` for two runs.
"""
