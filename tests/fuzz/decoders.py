"""Everything in both programs that reads bytes or text from outside, by name."""

from tests.fuzz import agents, peers, people, provisioners, wires
from tests.fuzz.decoder import Decoder

DECODERS: dict[str, Decoder] = {
    **agents.DECODERS,
    **provisioners.DECODERS,
    **people.DECODERS,
    **peers.DECODERS,
    **wires.DECODERS,
}
