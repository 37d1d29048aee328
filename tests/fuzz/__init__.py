"""Bytes that nobody should send, to everything that reads bytes from outside.

Rule 1: a decoder answers, or raises its own error in a line, and each is there soon: no other exception, no traceback
        in a log, no endless work.
Rule 2: hypothesis draws, and shrinks what fails. What is left of it stands in the line that replays it: no seed of one
        version of a library is needed to see it again. What was found once stands in `found.py` from then on.
"""
