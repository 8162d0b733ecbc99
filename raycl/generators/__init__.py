"""What stands for a class's vectors once they are gone: fitted per class, packed in banks.

No Ray and no store here: whoever calls decides where a fit runs and what becomes of a bank.
"""
