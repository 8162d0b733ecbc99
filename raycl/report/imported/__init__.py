"""Results that others measured, read from their files and stored as results marked imported."""
