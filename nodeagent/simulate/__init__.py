"""Simulated machines: many agents in few processes, over the real protocol and the real mTLS, with faults by schedule.

Rule 1: only the machine is made up. Session, uplink, enrolment and the plan for the certificate are the agent's own;
        a fault comes in by a door: the hardware, the cable, the clock, the power. The agent knows of none of them.
Rule 2: machines are captured ones in disguise. The seed decides who they are, how their dials move and what befalls
        them; the state folder keeps their keys, so that a second start is the same machines again.
Rule 3: it says goodbye on each stream, and ends within 5 s of SIGINT or SIGTERM; with thousands, in some tens of them.
"""
