"""`kill -9` of the real programs by seed: real processes, mTLS and SQLite, under steady writes.

Rule 1: what counts as acknowledged is what came back over the wire: an answer, an acknowledgement, a certificate.
Rule 2: after each kill the files are judged as they lie there, in a copy; after each start, what is served.
Rule 3: a seed decides who is killed and when; when exactly the process dies in its work is the machine's to say. So a
        seed that failed may have to be run a few times before it fails again.
"""
