"""Images that may be embedded in a page: recognised by their bytes, and small enough for a browser.

Sources: the PNG, GIF, JPEG and WebP specifications.
"""

import base64
import struct
from dataclasses import dataclass

MAX_BYTES = 2 * 1024**2
MAX_PIXELS = 25_000_000  # a small file may unpack into gigabytes
# Markers of frames with a JPEG's size: SOF0 to SOF15 except DHT, JPG and DAC.
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Raster:
    """An image's media type, and its width and height in pixels."""

    media_type: str
    width: int
    height: int

    def can_be_shown(self, size: int) -> bool:
        """Whether the image, of `size` bytes, may be embedded in a page."""
        return size <= MAX_BYTES and 0 < self.width * self.height <= MAX_PIXELS


def raster_of(content: bytes) -> Raster | None:
    """The image's type and dimensions, read from its bytes; None if it is not an image of these formats."""
    try:
        if content.startswith(b"\x89PNG\r\n\x1a\n") and content[12:16] == b"IHDR":
            return Raster("image/png", *struct.unpack(">II", content[16:24]))
        if content[:6] in (b"GIF87a", b"GIF89a"):
            return Raster("image/gif", *struct.unpack("<HH", content[6:10]))
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            return _webp(content)
        if content.startswith(b"\xff\xd8\xff"):
            return _jpeg(content)
    except struct.error:
        pass  # truncated before its dimensions
    return None


def data_uri(media_type: str, content: bytes) -> str:
    """The content as a URI for an <img>, which executes nothing that the content may hold."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _webp(content: bytes) -> Raster | None:
    kind = content[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
        return Raster("image/webp", width, height)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", content[26:30])
        return Raster("image/webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", content[21:25])
        return Raster("image/webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    return None


def _jpeg(content: bytes) -> Raster | None:
    at = 2
    while at + 9 <= len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        length, height, width = struct.unpack(">HxHH", content[at + 2 : at + 9])
        if marker in _JPEG_SIZES:
            return Raster("image/jpeg", width, height)
        at += 2 + length
    return None
