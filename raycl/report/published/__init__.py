"""What papers report, as data, and our runs beside it: `lada.csv` and its siblings.

Every figure is one that a source at hand states; what a source does not state is empty. No
figure of ours is ever written here, and none of theirs enters a leaderboard.
"""
