"""Bytes that nobody should send, to everything that reads bytes from outside.

Rule 1: a decoder answers, or raises its own error in a line, and each is there soon: no other exception, no traceback
        in a log, no endless work.
Rule 2: hypothesis draws, and shrinks what fails. What is left of it stands in the line that replays it: no seed of one
        version of a library is needed to see it again. What was found once stands in `found.py` from then on.
Rule 3: whatever decodes has a row: `places.py` finds what has none.

Why hypothesis and not atheris (3.0 was tried on the same rows): coverage leads atheris through Python only, and most of
what decodes here is upb, msgspec and OpenSSL: of a CSR it saw 3 branches, and stood still. It takes 130 MB, is for
x86-64 only, ends the process that it runs in, and knows neither our messages nor JSON and TOML of another shape. It is
fifty times as fast on a parser of our own: look again when there are more of those.
"""
