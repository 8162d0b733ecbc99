"""Backbones: what turns images and class names into vectors.

`files` finds what a backbone is made of, `content` names it in keys, both without torch;
`encoder` loads it through open_clip's factory; `text_tower` opens its text tower up.
"""
