"""A fleet in virtual time: the agents' and the provisioner's own logic; clock, network and disk are made up.

Rule 1: one seeded generator decides everything: the same seed is the same log, event by event.
Rule 2: nothing here waits, opens a socket or starts a thread.
Rule 3: what is judged is the product's: both sessions, dead bands, the certificate's plan, admission, the vigil, the
        world's changes; the outbox, the watches and `once`, as coroutines on a loop whose clock is virtual. What stands
        in for the edges says which edge it stands in for.
"""
