"""The commands, one file each: the file's name is the command's name, and `command` in it is the command.

They are named here with what they do, in the order of the help, so that `bedplate --help` imports none of them.
"""

from collections.abc import Mapping

COMMANDS: Mapping[str, str] = {
    "machines": "List machines.",
    "machine": "Look at one machine, accept it, revoke it, give it a new key, forget it.",
    "explain": "Say why a machine is in its phase.",
    "topology": "Show which NIC is nearest to which GPU.",
    "watch": "Follow machines or events as they change.",
    "events": "List what happened.",
    "audit": "List who wrote what, and verify that nobody changed it since.",
    "token": "Make, list and revoke join tokens.",
    "credential": "List certificates of people and tools, and take them back.",
    "context": "Choose which provisioner to talk to.",
    "status": "Show the provisioner, and who you are to it.",
    "simulate": "Run made-up machines against the provisioner.",
    "completion": "Print the shell's completion script.",
    "version": "Print the versions.",
}
