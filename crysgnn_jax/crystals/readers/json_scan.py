"""JSON of any size, value by value, with the place of each in the file."""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

from crysgnn_jax.crystals.readers.indexed import CHUNK

MAX_RECORD = 2**27
"""Bytes that one record may have. The largest structures that a graph network is for have one of
a megabyte; what goes on for longer is damaged."""

_SPACE = re.compile(r"[ \t\n\r]*")


class Reader(Protocol):
    """Anything that bytes are read from."""

    def read(self, size: int, /) -> bytes: ...


class Value(NamedTuple):
    """A value, and the bytes that it stands in: ``start … stop − 1`` of the file."""

    content: Any
    start: int
    stop: int


class Scanner:
    """The values of a JSON text in UTF-8, of which a few are in memory at a time.

    Args:
      file: what to read, at its beginning.

    Its methods raise `ValueError` where the text is no JSON or ends early, and `RecursionError`
    where it is nested too deeply.
    """

    def __init__(self, file: Reader):
        self._file = file
        # Each byte is a character here: places are those of the file, and what is no ASCII can
        # only stand within quotes.
        self._text = file.read(CHUNK).decode("latin-1")
        self._at = 3 if self._text.startswith("\xef\xbb\xbf") else 0
        self._before = 0
        self._decode = json.JSONDecoder().raw_decode

    def place(self) -> int:
        """Where the next value begins, or the end, in bytes."""
        self.peek()
        return self._before + self._at

    def stop(self) -> int:
        """Where the last value ended, in bytes."""
        return self._before + self._at

    def peek(self) -> str:
        """The next character that is no white space; nothing at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, expected: str) -> str:
        """The next character, which must be one of those expected."""
        found = self.peek()
        if not found or found not in expected:
            found = repr(found) if found else "the end"
            raise ValueError(
                f"{' or '.join(expected)} is expected at byte {self._before + self._at}, not "
                f"{found}"
            )
        self._at += 1
        return self._text[self._at - 1]

    def value(self) -> Value:
        """The next value."""
        self.peek()
        while True:
            try:
                content, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > MAX_RECORD or not self._more():
                    raise ValueError(f"{error.msg} at byte {self._before + error.pos}") from None
                continue
            # A number may go on in what is not read yet.
            if end == len(self._text) and self._more():
                continue
            text = self._text[self._at : end]
            if not text.isascii():
                content = json.loads(text.encode("latin-1"))
            found = Value(content, self._before + self._at, self._before + end)
            self._at = end
            return found

    def values_of_list(self) -> Iterator[Value]:
        """The values of the list that comes next."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield self.value()
            if self.take(",]") == "]":
                return

    def keys_of_object(self) -> Iterator[str]:
        """The keys of the object that comes next; after each, the caller takes its value."""
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return
        while True:
            if self.peek() != '"':
                raise ValueError(f"a name is expected at byte {self._before + self._at}")
            key = self.value().content
            self.take(":")
            yield key
            if self.take(",}") == "}":
                return

    def end(self) -> None:
        """Nothing may follow."""
        if self.peek():
            raise ValueError(f"there is more after the end, at byte {self._before + self._at}")

    def _more(self) -> bool:
        """Read on, at least as much as is held already; whether there was anything."""
        self._text = self._text[self._at :]
        self._before += self._at
        self._at = 0
        content = self._file.read(max(CHUNK, len(self._text)))
        self._text += content.decode("latin-1")
        return bool(content)
