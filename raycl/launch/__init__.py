"""Commands sent to clusters: rendered as a plan that can be read first, then sent."""
