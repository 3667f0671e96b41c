"""Structure files in an archive, tar or zip, read without unpacking it."""

import bz2
import gzip
import lzma
import os
import struct
import tarfile
import tempfile
import zipfile
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.readers.cgcnn_folder import ID_PROP, Table
from crysgnn_jax.crystals.readers.cif import block_names, crystal_in
from crysgnn_jax.crystals.readers.indexed import (
    Catalogue,
    Catalogued,
    Texts,
    add_file,
    begin,
    digest_of,
    reading,
)
from crysgnn_jax.crystals.readers.items import Problem, decode_item, one_line
from crysgnn_jax.crystals.readers.jarvis_json import jarvis_json
from crysgnn_jax.crystals.readers.kept import DAMAGE, removed_if_damaged, unpacked_file
from crysgnn_jax.crystals.readers.structure_files import (
    CIF,
    SINGLE,
    is_poscar,
    not_read,
    single_structure,
    stem_of,
    suffix_of,
)
from crysgnn_jax.crystals.sources import Source
from crysgnn_jax.errors import InvalidCrystal, UserError

TAR: dict[str, Callable[..., Any] | None] = {
    **{".tar": None, ".tar.gz": gzip.open, ".tgz": gzip.open},
    **{".tar.bz2": bz2.open, ".tbz2": bz2.open, ".tar.xz": lzma.open, ".txz": lzma.open},
}
"""Suffix → how to open what is compressed."""

MAX_MEMBER = 2**27
"""Bytes that one structure may have, unpacked."""

_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_ENCRYPTED = 1
_LOCAL = struct.Struct("<4s22xHH")
"""What stands before a member of a zip archive, and how long its name and its other fields are."""


class Member(NamedTuple):
    """Where a file of an archive lies.

    Attributes:
      name: with folders.
      start: where its bytes begin.
      size: of these bytes.
      method: how they are compressed, as of `zipfile`.
      plain: bytes that they are unpacked.
      check: CRC-32 of these; -1 where the archive has none.
      problem: why it cannot be read.
    """

    name: str
    start: int
    size: int
    method: int = _STORED
    plain: int = 0
    check: int = -1
    problem: str = ""

    def unpacked(self, content: bytes) -> bytes:
        """The file, of its bytes in the archive.

        Raises:
          ValueError: it cannot be read.
        """
        if self.problem:
            raise ValueError(self.problem)
        if self.method == _DEFLATED:
            try:
                content = zlib.decompressobj(-15).decompress(content, self.plain + 1)
            except zlib.error as error:
                raise ValueError(f"it is damaged in the archive ({error})") from None
        if self.check >= 0 and (len(content) != self.plain or zlib.crc32(content) != self.check):
            raise ValueError("it is damaged in the archive (its checksum is another)")
        return content


class Packed(NamedTuple):
    """One structure of an archive, as the bytes that it has there."""

    id: str
    member: Member
    content: bytes
    block: str = ""
    labels: Mapping[str, float] = {}

    def crystal(self) -> Crystal:
        """
        Raises:
          InvalidCrystal: it cannot be read, or is no ordered, periodic crystal.
        """
        name = os.path.basename(self.member.name)
        try:
            content = self.member.unpacked(self.content)
        except ValueError as error:
            raise InvalidCrystal(self.id, f"{name}: {error}") from None
        if suffix_of(name) in CIF:
            return crystal_in(content, name, self.id, self.labels, self.block or None)
        with tempfile.TemporaryDirectory() as folder:  # ASE tells formats by names
            path = Path(folder, name)
            path.write_bytes(content)
            return single_structure(path, self.id)


class Archive(Catalogued):
    """The structure files of an archive, as a `sources.Source`; see `archive`.

    Args:
      path: of the archive.
      plain: the archive that can be read at any place.
      members: its files.

    Raises:
      UserError: it has no structure files.
    """

    decode = staticmethod(decode_item)

    def __init__(self, path: Path, plain: Path, members: Iterator[Member]):
        self.name = str(path)
        self.places = (str(path),)
        self._path = plain
        self._names = Texts()
        self._places = array("Q")
        self._of_item, self._blocks = array("I"), Texts()
        self._problems: dict[int, str] = {}
        self._table: Table | None = None
        other: list[str] = []
        table: Member | None = None
        for member in members:
            base = os.path.basename(member.name)
            if base == ID_PROP and table is None:
                table = member
            elif _is_read(base):
                self._add(member)
            elif not member.name.startswith("__MACOSX/"):
                other.append(base)
        left = not_read(other, ())
        if not self._names:
            raise UserError(
                f"{path}: the archive has no structure files ({', '.join(sorted(CIF | SINGLE))}, "
                "POSCAR)"
                + (f", but {left}; unpack it, and name what is to be read" if left else "")
            )
        digest = digest_of("archive")
        with reading(plain) as file:
            if table is not None:
                self._take_table(file, table, digest)
                problems = self.catalogue.problems
                read = {file for row, file in enumerate(self._of_item) if row not in problems}
                without = len(self._names) - len(read)
                self.notes = (
                    [f"{without} files have no row in {ID_PROP} and are not read"]
                    if without
                    else []
                )
            else:
                self._take_all(file, digest)
                self.notes = [f"not read: {left}"] if left else []
        self.digest = digest.hexdigest()

    @property
    def label_names(self) -> list[str]:
        """Of the table of the archive, if it has one."""
        return [] if self._table is None else self._table.names

    def items(self, start: int, stop: int) -> list[Packed | Problem]:
        """The items ``start … stop − 1``, whose bytes are read now, and unpacked by the workers."""
        found: list[Packed | Problem] = []
        with reading(self._path) as file:
            for number in range(start, min(stop, len(self))):
                if number in self.catalogue.problems:
                    found.append(self.catalogue.problems[number])
                    continue
                member = self._member(self._of_item[number])
                labels = {} if self._table is None else self._table.labels(number)
                id, block = self.catalogue.id_of(number), self._blocks[number]
                found.append(Packed(id, member, _content(file, member), block, labels))
        return found

    def _add(self, member: Member) -> None:
        if member.problem:
            self._problems[len(self._names)] = member.problem
        self._names.append(member.name)
        self._places.extend((member.start, member.size, member.method, member.plain))
        self._places.append(member.check + 1)

    def _member(self, number: int) -> Member:
        start, size, method, plain, check = self._places[5 * number : 5 * number + 5]
        problem = self._problems.get(number, "")
        return Member(self._names[number], start, size, method, plain, check - 1, problem)

    def _take_all(self, file: BinaryIO, digest: Any) -> None:
        """Each structure of each file is an item."""
        self.catalogue = Catalogue()
        names = [self._names[k] for k in range(len(self._names))]
        common = os.path.commonprefix([os.path.dirname(name) + "/" for name in names])
        common = common[: common.rfind("/") + 1]
        names = [name[len(common) :] if len(common) > 1 else name for name in names]
        stems = Counter(map(stem_of, names))
        for number, name in enumerate(names):
            stem = stem_of(name)
            blocks, content = [""], self._digested(file, number, digest)
            if content is not None and suffix_of(name) in CIF:
                blocks = block_names(content, name)
            for block in blocks:
                id = stem if stems[stem] == 1 else name
                self.catalogue.add(f"{id}#{block}" if block else id)
                self._blocks.append(block)
                self._of_item.append(number)

    def _take_table(self, file: BinaryIO, table: Member, digest: Any) -> None:
        """Each row of a table is an item."""
        where = f"{self.name}: {table.name}"
        try:
            content = table.unpacked(_content(file, table))
        except ValueError as error:
            raise UserError(f"{where}: {error}; download the archive again") from None
        begin(digest, ID_PROP, len(content))
        digest.update(content)
        folder = table.name[: -len(ID_PROP)]
        numbers = {self._names[k]: k for k in range(len(self._names))}
        self._table = Table(content, where, lambda name: folder + name in numbers)
        self.catalogue = self._table.catalogue
        for row in range(len(self.catalogue)):
            self._blocks.append("")
            self._of_item.append(numbers.get(f"{folder}{self._table.ids[row]}.cif", 0))
            if row not in self.catalogue.problems:
                self._digested(file, self._of_item[row], digest)

    def _digested(self, file: BinaryIO, number: int, digest: Any) -> bytes | None:
        """The content of a file, which is added to the digest; None where it is damaged."""
        member = self._member(number)
        content: bytes | None = _content(file, member)
        try:
            content = member.unpacked(content or b"")
        except ValueError as error:
            digest.update(str(error).encode())
            return None
        begin(digest, member.name, len(content))
        digest.update(content)
        return content


def is_tar(path: Path) -> bool:
    """Whether a file is a tar archive, by its name."""
    return path.name.lower().endswith(tuple(TAR))


def tar_file(path: Path) -> Archive:
    """The structure files in a tar archive.

    A crystal's id is the name of its file without suffix, with the folders below the one that all
    files are in; with ``#`` and the name of the data block where a CIF file holds several
    structures. Where ``id_prop.csv`` is in the archive, its rows are the crystals, as of a folder.

    A compressed archive is unpacked once, as one file, into the cache: there is no other way to a
    file in it than through all that are before.

    Raises:
      UserError: it is damaged, or has no structure files.
    """
    suffix = next(
        end for end in sorted(TAR, key=len, reverse=True) if path.name.lower().endswith(end)
    )
    if TAR[suffix] is None:
        return _tar(path, path)
    digest = digest_of("tar")
    add_file(digest, path)
    plain = unpacked_file(path, f"{digest.hexdigest()}.tar", TAR[suffix])
    with removed_if_damaged(plain):
        return _tar(path, plain)


def _tar(path: Path, plain: Path) -> Archive:
    try:
        with tarfile.open(plain, "r:") as archive:
            return Archive(path, plain, _members_of_tar(archive))
    except (tarfile.TarError, *DAMAGE) as error:
        raise UserError(
            f"{path}: damaged or incomplete ({one_line(error)}); download it again"
        ) from None


def _members_of_tar(archive: tarfile.TarFile) -> Iterator[Member]:
    while (member := archive.next()) is not None:
        # Those it has read, which would be a kilobyte each.
        archive.members.clear()  # type: ignore[attr-defined]
        if not member.isreg():
            continue
        problem = ""
        if member.issparse():
            problem = "it has holes; unpack the archive"
        elif member.size > MAX_MEMBER:
            problem = f"it has {member.size} bytes"
        yield Member(member.name, member.offset_data, member.size, problem=problem)
    # To tarfile, one that is cut short between two files, or in what stands before one, is at its
    # end.
    with open(str(archive.name), "rb") as file:
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ValueError("the mark of its end is missing")


def zip_file(path: Path) -> Source:
    """The structure files in a zip archive, as of `tar_file`; or the records of its one JSON file,
    where it has no structure files, see `jarvis_json`.

    Raises:
      UserError: it is damaged, or has neither.
    """
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            members = archive.infolist()
            read = any(_is_read(os.path.basename(member.filename)) for member in members)
            if read or not any(member.filename.endswith(".json") for member in members):
                return Archive(path, path, _members_of_zip(members, file))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, *DAMAGE) as error:
        raise UserError(
            f"{path}: damaged or incomplete ({one_line(error)}); download it again"
        ) from None
    return jarvis_json(path)


def _members_of_zip(members: list[zipfile.ZipInfo], file: BinaryIO) -> Iterator[Member]:
    for member in members:
        if member.is_dir():
            continue
        problem = ""
        file.seek(member.header_offset)
        head = file.read(_LOCAL.size)
        start = member.header_offset + _LOCAL.size
        if len(head) < _LOCAL.size or head[:4] != b"PK\x03\x04":
            problem = "it is damaged in the archive (it is not where it should be)"
        else:
            start += sum(_LOCAL.unpack(head)[1:])
        if member.flag_bits & _ENCRYPTED:
            problem = "it is encrypted; unpack the archive"
        elif member.compress_type not in (_STORED, _DEFLATED):
            problem = f"it is compressed by a method ({member.compress_type}) that is not read"
        elif max(member.file_size, member.compress_size) > MAX_MEMBER:
            problem = f"it has {member.file_size} bytes"
        yield Member(
            *(member.filename, start, member.compress_size, member.compress_type),
            *(member.file_size, member.CRC, problem),
        )


def _content(file: BinaryIO, member: Member) -> bytes:
    """The bytes of a member, as they are in the archive."""
    if member.problem:
        return b""
    file.seek(member.start)
    return file.read(member.size)


def _is_read(base: str) -> bool:
    """Whether a file is read, by its name without folders."""
    return not base.startswith(".") and (suffix_of(base) in CIF | SINGLE or is_poscar(base))
