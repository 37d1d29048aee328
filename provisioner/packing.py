"""Bodies as they lie in memory and on the disk: Zstandard frames (RFC 8878), each with its size and a checksum.

Rule: what was packed here is unpacked here. Of what others send nothing is.
"""

from zstandard import ZstdCompressor, ZstdDecompressor, ZstdError, get_frame_parameters

LEVEL = 1  # a sixth of an inventory's size, for half of what zlib's fastest takes of the processor
MOST = 64 << 20  # bytes unpacked: what says that it is more is damaged


class DamagedError(Exception):
    """It is not what was packed."""


class Packer:
    """For one thread at a time. It takes longer to make than to use."""

    def __init__(self) -> None:
        self._packing = ZstdCompressor(level=LEVEL, write_checksum=True)
        self._unpacking = ZstdDecompressor()

    def pack(self, body: bytes) -> bytes:
        return self._packing.compress(body)

    def unpack(self, packed: bytes) -> bytes:
        """DamagedError where it is not what was packed."""
        try:
            size = get_frame_parameters(packed).content_size
            if size > MOST:
                raise DamagedError(f"{size} bytes when unpacked")
            return self._unpacking.decompress(packed, allow_extra_data=False)
        except ZstdError as error:
            raise DamagedError(str(error)) from error
