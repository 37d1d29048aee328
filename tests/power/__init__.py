"""A power cut at any moment: what the real code had written is recorded, and the disk of each moment is built again.

Rule 1: of a file, what was synced is there; of what was not, any sectors may be, in any order, or none.
Rule 2: of a folder, names are there once the folder was synced; of changes since, the first few may be: file systems
        keep the order of those.
Rule 3: what was acknowledged before the cut must be there after it, with the real code opening what it finds.
"""
