"""Bytes and text of files as people have them: compressed, with marks, in any encoding."""

import gzip
import io
import zlib

MAX_EXPANSION = 200
"""Times the size of a compressed file that its content may have. Structures compress to a tenth;
what exceeds this is made to fill memory."""

MIN_LIMIT = 1_000_000
"""Bytes that any compressed file may have as content: small ones compress best."""

_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
"""Byte-order marks, the longer ones first."""

_PLAIN = str.maketrans({"\u00a0": " ", "\u2212": "-", "\u2013": "-", "\u2018": "'", "\u2019": "'"})
"""What editors make of a space, a minus and quotes."""


def unpacked(content: bytes, name: str) -> bytes:
    """The bytes of a file; of a ``.gz`` file, what is compressed in it.

    Args:
      content: of the file.
      name: of the file.

    Raises:
      ValueError: it is damaged, or its content is more than `MAX_EXPANSION` times its size.
    """
    if not name.lower().endswith(".gz"):
        return content
    limit = limit_of(len(content))
    try:
        with gzip.open(io.BytesIO(content), "rb") as file:
            found = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(str(error)) from None
    if len(found) > limit:
        raise ValueError(f"its content is over {MAX_EXPANSION} times its size; unpack it yourself")
    return found


def limit_of(size: int) -> int:
    """Bytes that may come out of so many compressed ones."""
    return max(MIN_LIMIT, MAX_EXPANSION * size)


def as_ascii(content: bytes) -> bytes:
    """Text as ASCII, whatever its encoding: a structure needs no more. Other characters become
    ``?``.

    Raises:
      ValueError: as of `as_text`.
    """
    if content.isascii():
        return content
    return as_text(content).translate(_PLAIN).encode("ascii", "replace")


def as_text(content: bytes) -> str:
    """Text of any encoding. A byte-order mark names it and is no content; else it is UTF-8, or
    Latin-1 where that cannot be.

    Raises:
      ValueError: a byte-order mark does not fit what follows.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if encoding is not None:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            raise ValueError(f"it begins as {encoding.upper()}, and is not") from None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")
