"""Procedural pictures: glyphs, handwriting, shapes, textures, colours. NumPy and Pillow only."""
