"""Events and who watches them: a live display, plain lines, a JSONL file.

Nothing here imports torch, ray or pyarrow.
"""
