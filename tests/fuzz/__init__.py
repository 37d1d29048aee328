"""Bytes that nobody should send, to everything that reads bytes from outside.

Rule 1: a decoder answers, or raises its own error, and each is there soon: no other exception, no endless work.
Rule 2: a seed is one input: what failed is made again from its decoder's name and its number.
"""
