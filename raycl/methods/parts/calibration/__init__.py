"""Calibrators: how stored statistics follow an encoder that has moved."""
