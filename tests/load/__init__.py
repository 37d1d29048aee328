"""A load generator: thousands of machines that hold real mTLS streams, in few processes and for little processor time.

Rule 1: what travels is real: certificates of the CA, the protocol, the vitals of a captured machine as an agent sends
        them. Made up is only who they are.
Rule 2: the generator says when it was itself the bottleneck; a figure that it spoilt is none.
Rule 3: nothing of this is part of the product.
"""
