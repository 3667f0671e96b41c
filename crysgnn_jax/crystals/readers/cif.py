"""Reading CIF files with gemmi: blocks, sites, symmetry and the formula to check them with."""

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import gcd
from pathlib import Path
from typing import NamedTuple

import gemmi
import numpy as np

from crysgnn_jax.crystals.contents import as_ascii, unpacked
from crysgnn_jax.crystals.crystal import Crystal
from crysgnn_jax.crystals.elements import SYMBOLS
from crysgnn_jax.crystals.readers.items import one_line
from crysgnn_jax.crystals.readers.space_groups import (
    TAGS,
    Setting,
    Stated,
    fits_cell,
    stated_symmetry,
)
from crysgnn_jax.errors import InvalidCrystal

MERGE_DISTANCE = 0.05
"""Å. Images of a site closer than this are one atom on a special position: coordinates such as
0.3333 put them a little apart."""

SAME_SITE = 0.01
"""Å. Sites of one element closer than this are one: atoms on the faces of the cell, or images
that a file lists although its operations make them."""

TOO_CLOSE = 0.7
"""Of the sum of two covalent radii: no bond is shorter. What a wrong origin gives away."""

USUAL = (0.9, 1.25)
"""Of that sum: the least distance in nearly every crystal. Silicon has 1.06, and 0.86 where the
other origin of its space group makes 16 atoms of 8; it decides between two origins alone."""

MAX_ATOMS = 100_000
"""Atoms that a cell may have after its symmetry is expanded; a graph is limited further."""

OCCUPANCY_TOLERANCE = 1e-3 + 1e-9

_CELL = [f"_cell_{kind}" for kind in ("length_a", "length_b", "length_c")] + [
    f"_cell_angle_{name}" for name in ("alpha", "beta", "gamma")
]
_FORMULA, _UNITS = "_chemical_formula_sum", "_cell_formula_units_Z"
_READ = {tag.lower() for tag in (*_CELL, *TAGS, _FORMULA, _UNITS)}

_NUMBERS = {symbol: number for number, symbol in enumerate(SYMBOLS) if number > 0} | {"D": 1}

_TYPE = re.compile(r"([A-Za-z]{1,2})(?:\d+(?:\.\d+)?[+-]|[+-]\d*(?:\.\d+)?|\d*)$")
"""An element and a charge or number, as in ``Na``, ``Na1+``, ``Fe+3``, ``O2``."""

_NOTHING = ("", "?", ".")
"""Texts that say nothing."""

_MORE_OF_SITES = (
    *("label", "type_symbol", "occupancy", "calc_flag", "disorder_group", "disorder_assembly"),
)
"""Tags of sites that are read beside their coordinates where a block has them."""

_PART = re.compile(r"([A-Z][a-z]?)(\d+(?:\.\d+)?)?")

_BLOCK = re.compile(rb"^[ \t]*data_", re.IGNORECASE | re.MULTILINE)

_UNREAD = re.compile(
    r"_(?!cell|symmetry|space_group|atom_site|chemical_formula_sum)\S+[ \t]+\S", re.I
)


class Sites(NamedTuple):
    """The atoms that a block lists.

    Attributes:
      numbers: ``[n]``, atomic numbers.
      coords: ``[n, 3]``, fractional.
    """

    numbers: np.ndarray
    coords: np.ndarray


class Atoms(NamedTuple):
    """All atoms of a cell, and what was done to get them.

    Attributes:
      species: ``[n]``, atomic numbers.
      coords: ``[n, 3]``, fractional.
      closest: of any two atoms, in parts of the sum of their covalent radii; infinite where it
        was not asked for.
      merged: sites left out because another of their element is in their place.
    """

    species: np.ndarray
    coords: np.ndarray
    closest: float = np.inf
    merged: int = 0


def read_cif(
    path: Path, id: str, labels: Mapping[str, float] | None = None, block: str | None = None
) -> Crystal:
    """A structure of a CIF file; see `crystal_in`.

    Raises:
      InvalidCrystal: the file cannot be read, or as of `crystal_in`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidCrystal(
            id, f"{path.name} is not a valid CIF, or cut short: {one_line(error)}"
        ) from None
    return crystal_in(content, path.name, id, labels, block)


def crystal_in(
    content: bytes,
    name: str,
    id: str,
    labels: Mapping[str, float] | None = None,
    block: str | None = None,
) -> Crystal:
    """A structure of the content of a CIF file, its symmetry expanded to the whole unit cell.

    Atoms come in the order of the file, each followed by its images. What a user should know of
    how it was read is in the crystal's notes.

    Args:
      content: of a ``.cif`` or ``.mcif`` file, also compressed (``.gz``).
      name: of the file.
      id: of the crystal.
      labels: of the crystal.
      block: name of the data block, as of `block_names`; None: the only one that has atoms.

    Raises:
      InvalidCrystal: the file is cut short or no CIF; it holds a disordered structure,
        an unknown element, no cell or atoms, or several structures and ``block`` does not say
        which; or what it says of cell, symmetry, formula and atoms does not fit together.
    """
    try:
        # gemmi raises these for broken files, cells and symmetry operations alike.
        structures = _structures(_document(content, name))
    except (OSError, ValueError, RuntimeError) as error:
        reason = one_line(error).removeprefix("string:")
        raise InvalidCrystal(id, f"{name} is not a valid CIF, or cut short: {reason}") from None
    if not structures:
        raise InvalidCrystal(id, f"{name} has no atoms with fractional coordinates")
    if block is None and len(structures) > 1:
        raise InvalidCrystal(
            id,
            f"{name} holds {len(structures)} structures ({', '.join(list(structures)[:3])}…);"
            " give each a file of its own",
        )
    found = structures[block] if block is not None else next(iter(structures.values()))
    try:
        return _Block(found, name).crystal(id, dict(labels or {}))
    except (ValueError, RuntimeError) as error:
        raise InvalidCrystal(id, f"{name}: {one_line(error)}") from None


def block_names(content: bytes, name: str) -> list[str]:
    """Names of the data blocks that have atoms; one empty name where there is but one block, or
    the file cannot be read, which `crystal_in` will tell.

    Args:
      content: as of `crystal_in`.
      name: of the file.
    """
    try:
        content = unpacked(content, name)
        # Most files have one, and are many: what is quick comes first.
        several = content.lower().count(b"data_") > 1 and len(_BLOCK.findall(content)) > 1
        if not several and b"\0" not in content[:200]:
            return [""]
        names = list(_structures(_document(content)))
    except (OSError, ValueError, RuntimeError):
        return [""]
    return names if len(names) > 1 else [""]


def _document(content: bytes, name: str = "") -> gemmi.cif.Document:
    """Args as of `crystal_in`."""
    content = as_ascii(unpacked(content, name))
    try:
        return gemmi.cif.read_string(content, check_level=0)
    except ValueError:
        mended = _without_bare_text(content.decode("ascii"))
        if mended is None:
            raise
        return gemmi.cif.read_string(mended, check_level=0)


def _without_bare_text(text: str) -> str | None:
    """The text with ``?`` for values of several words that should be in quotes, where no
    structure needs them; None where there are none."""
    lines, in_field, changed = text.split("\n"), False, False
    for k, line in enumerate(lines):
        if line.startswith(";"):
            in_field = not in_field
        elif not in_field and _UNREAD.match(line):
            tag, value = line.split(None, 1)
            if value[0] not in "'\"#" and len(value.split()) > 1:
                lines[k], changed = f"{tag} ?", True
    return "\n".join(lines) if changed else None


def _structures(document: gemmi.cif.Document) -> dict[str, gemmi.cif.Block]:
    """Name → block, of those that have atoms."""
    found: dict[str, gemmi.cif.Block] = {}
    for number, block in enumerate(document, 1):
        if block.find_loop("_atom_site_fract_x") or block.find_value("_atom_site_fract_x"):
            name = block.name or str(number)
            found[name if name not in found else f"{name}-{number}"] = block
    return found


class _Block:
    """One data block. Its methods raise `ValueError` for what cannot be used."""

    def __init__(self, block: gemmi.cif.Block, file: str):
        self.block = block
        self.file = file
        self.notes: list[str] = []
        self.values: dict[str, list[str]] = {}
        # One pass over the pairs: gemmi finds the first alone where a tag is given twice.
        for item in block:
            pair = item.pair
            if isinstance(pair, tuple) and pair[0].lower() in _READ:
                text = gemmi.cif.as_string(pair[1]).strip()
                if text not in _NOTHING:
                    self.values.setdefault(pair[0].lower(), []).append(text)

    def crystal(self, id: str, labels: dict[str, float]) -> Crystal:
        cell = self.cell()
        sites = self.sites()
        stated = stated_symmetry(self.of_tag, cell)
        atoms = self.expanded(sites, stated, cell)
        if atoms.merged:
            self.notes.append(f"{atoms.merged} sites are in the place of another and left out")
        if stated.magnetic:
            self.notes.append("a magnetic structure; its moments are left out")
        problem, note = self.compared_with_formula(atoms.species)
        if problem:
            raise ValueError(problem)
        self.notes += [note] if note else []
        lattice = _axes(cell).lattice
        notes = tuple(f"{self.file}: {note}" for note in self.notes)
        return Crystal(id, atoms.species, atoms.coords, lattice, labels, notes=notes)

    def of_tag(self, tag: str) -> list[str]:
        """The values of a tag, of a pair or a loop; those that say nothing are left out."""
        if tag.lower() in self.values:
            return [self.once(tag) or ""]
        found = (gemmi.cif.as_string(text).strip() for text in self.block.find_values(tag))
        return [text for text in found if text not in _NOTHING]

    def once(self, tag: str) -> str | None:
        """The value of a tag that may have but one.

        Raises:
          ValueError: it is given twice, with different values.
        """
        texts = self.values.get(tag.lower(), [])
        read = _counts if tag == _FORMULA else gemmi.cif.as_number
        bare = lambda text: text.replace(" ", "").replace("_", "").lower()
        for text in texts[1:]:
            if bare(text) != bare(texts[0]) and read(text) != read(texts[0]):
                raise ValueError(f"{tag} is given twice: {texts[0]!r} and {text!r}")
        return texts[0] if texts else None

    def cell(self) -> gemmi.UnitCell:
        texts = [self.once(tag) for tag in _CELL]
        missing = [tag for tag, text in zip(_CELL, texts) if text is None]
        if missing:
            raise ValueError(f"it has no unit cell: {missing[0]} is missing")
        values = [gemmi.cif.as_number(text or "?") for text in texts]
        for tag, text, value in zip(_CELL, texts, values):
            if not (0 < value < (180 if "angle" in tag else np.inf)):
                raise ValueError(f"{tag} is {text}; check the lattice")
        cell = gemmi.UnitCell(*values)
        if not (cell.volume > 0 and np.isfinite(cell.volume)):
            raise ValueError(f"the cell has no volume with the angles {values[3:]}")
        return cell

    def sites(self) -> Sites:
        column = self._site_columns()
        kept = [k for k, flag in enumerate(column["calc_flag"]) if flag.lower() != "dum"]
        if not kept:
            raise ValueError("it has no atoms but dummy sites")
        if n_dummies := len(column["calc_flag"]) - len(kept):
            self.notes.append(f"{n_dummies} dummy sites are left out")
            column = {tag: [texts[k] for k in kept] for tag, texts in column.items()}
        labels, types = column["label"], column["type_symbol"]

        def name(k: int) -> str:
            return labels[k] or types[k] or str(kept[k] + 1)

        # Of texts that many sites share, each is looked at once.
        filled = {text: _occupancy(text) for text in set(column["occupancy"])}
        if partly := [text for text in filled if not abs(filled[text] - 1) <= OCCUPANCY_TOLERANCE]:
            k = min(column["occupancy"].index(text) for text in partly)
            occupancy = filled[column["occupancy"][k]]
            raise ValueError(
                f"site {name(k)} is occupied to {occupancy:g}; give an ordered structure"
            )
        formula = self.formula() or Counter()
        of_type = {text: _of_type(text) for text in set(types) if text not in _NOTHING}
        numbers = [
            of_type[text] if text in of_type else _of_label(label, formula)
            for text, label in zip(types, labels)
        ]
        if None in numbers:
            k = numbers.index(None)
            symbol = types[k] if types[k] in of_type else labels[k]
            if gemmi.Element(symbol.strip("0123456789+-")).atomic_number >= len(SYMBOLS):
                raise ValueError(f"site {name(k)} has the element {symbol}, beyond the 100 known")
            raise ValueError(f"site {name(k)} has the unknown element {symbol!r}")
        self._refuse_alternatives(set(zip(column["disorder_assembly"], column["disorder_group"])))
        axes = [column[tag] for tag in ("fract_x", "fract_y", "fract_z")]
        coords = np.array([[gemmi.cif.as_number(text) for text in texts] for texts in axes]).T
        bad = np.flatnonzero(~np.isfinite(coords).all(axis=1))
        if len(bad):
            texts = ", ".join(_shown(texts[bad[0]]) for texts in axes)
            raise ValueError(
                f"site {labels[bad[0]] or kept[bad[0]] + 1}: a coordinate is not a finite number "
                f"({texts})"
            )
        return Sites(np.array(numbers), coords)

    def _site_columns(self) -> dict[str, list[str]]:
        """Tag → what each site has, unquoted; empty texts where the block does not have the tag.

        Raises:
          ValueError: there are no sites with three coordinates.
        """
        required, more = ("fract_x", "fract_y", "fract_z"), _MORE_OF_SITES
        table = self.block.find("_atom_site_", [*required, *(f"?{tag}" for tag in more)])
        if len(table) == 0:
            raise ValueError("it has no atoms with three fractional coordinates")
        # All values at once: gemmi takes five times as long to hand out a column.
        loop, values = table.loop, table.loop.values if table.loop else []
        tags = [tag.lower() for tag in loop.tags] if loop else []
        columns = {}
        for k, tag in enumerate((*required, *more)):
            if not table.has_column(k):
                columns[tag] = [""] * len(table)
                continue
            raw = values[tags.index(f"_atom_site_{tag}") :: len(tags)] if loop else table.column(k)
            columns[tag] = [gemmi.cif.as_string(text) for text in raw]
        return columns

    def _refuse_alternatives(self, groups: Iterable[tuple[str, str]]) -> None:
        """Sites of several disorder groups, or of one on both sides of a special position, are
        alternatives to each other.

        Args:
          groups: assembly and group of sites.
        """
        found: dict[str, set[str]] = {}
        for assembly, group in groups:
            if group not in (*_NOTHING, "0"):
                found.setdefault(assembly, set()).add(group)
        for names in found.values():
            if len(names) > 1 or any(name.startswith("-") for name in names):
                raise ValueError(
                    f"its sites belong to the disorder groups {', '.join(sorted(names))}; give an "
                    "ordered structure"
                )

    def expanded(self, sites: Sites, stated: Stated, cell: gemmi.UnitCell) -> Atoms:
        """The atoms of the whole cell, by the setting that fits the file."""
        settings = stated.settings or [Setting("", [gemmi.Op("x,y,z")])]
        fitting = [setting for setting in settings if fits_cell(setting.operations, cell)]
        if not fitting:
            a, b, c, *angles = (f"{value:g}" for value in cell.parameters)
            raise ValueError(
                f"the cell ({a}, {b}, {c} Å; {', '.join(angles)}°) contradicts the space group"
                f"{' ' + settings[0].name if settings[0].name else ''} (by its {stated.source})"
            )
        if stated.named:
            self._check_identity(sites, stated.named, cell)
        if len(settings) == 1:
            return _expand(sites, settings[0].operations, cell)
        return self._chosen(sites, fitting, settings, cell)

    def _chosen(
        self,
        sites: Sites,
        fitting: Sequence[Setting],
        settings: Sequence[Setting],
        cell: gemmi.UnitCell,
    ) -> Atoms:
        """The atoms by the one of several settings that cell, formula and distances allow."""
        names = [setting.name for setting in settings]
        if len(fitting) == 1:
            if fitting[0] is not settings[0]:  # which is the conventional one
                self.notes.append(
                    f"{fitting[0].name}, of {' and '.join(names)}, is what the cell fits"
                )
            return _expand(sites, fitting[0].operations, cell)
        tried, reasons = [], []
        for setting in fitting:
            atoms = _expand(sites, setting.operations, cell, distances=True)
            problem, _ = self.compared_with_formula(atoms.species)
            if atoms.closest < TOO_CLOSE:
                problem = f"atoms at {atoms.closest:.2f} of the sum of their radii"
            if problem:
                reasons.append(f"{setting.name}: {problem}")
            else:
                tried.append((setting, atoms))
        ways = f"give the operations, or the setting as in {names[-1]!r}"
        if not tried:
            raise ValueError(
                f"the space group has the settings {' and '.join(names)}, and none fits the atoms "
                f"({'; '.join(reasons)})"
            )
        if len(tried) > 1:
            usual = [one for one in tried if USUAL[0] <= one[1].closest <= USUAL[1]]
            if len(usual) == 1:
                setting, atoms = usual[0]
                others = [
                    f"{other.name} ({len(found.species)} atoms, {found.closest:.2f})"
                    for other, found in tried
                    if other is not setting
                ]
                self.notes.append(
                    f"{setting.name} was taken ({len(atoms.species)} atoms, the closest at "
                    f"{atoms.closest:.2f} of the sum of their radii), not {' or '.join(others)}"
                )
                return atoms
        if len(tried) > 1 and not _same_crystal(tried[0][1], tried[1][1], cell):
            raise ValueError(f"both {' and '.join(names)} fit the atoms, which differ; {ways}")
        if len(tried) == 1:
            self.notes.append(f"{tried[0][0].name} was taken, not {'; not '.join(reasons)}")
        return tried[0][1]

    def _check_identity(self, sites: Sites, named: Sequence[Setting], cell: gemmi.UnitCell) -> None:
        """A file that names a group and lists the identity alone has all of its atoms, or not.

        Raises:
          ValueError: the group would add atoms.
        """
        if all(len(setting.operations) == 1 for setting in named):
            return
        name = named[0].name
        if len(sites.numbers) * len(named[0].operations) > MAX_ATOMS:
            return
        fitting = [setting for setting in named if fits_cell(setting.operations, cell)]
        listed = _expand(sites, [gemmi.Op("x,y,z")], cell)
        whole = [
            len(_expand(sites, setting.operations, cell).species) == len(listed.species)
            for setting in fitting
        ]
        if fitting and not any(whole):
            raise ValueError(
                f"it names the space group {name} and lists the identity as the only operation: "
                "leave one of them out, or list all operations"
            )
        self.notes.append(
            f"names the space group {name}, and lists the identity alone, by which it was read"
        )

    def formula(self) -> Counter[int] | None:
        """Atomic number → count of the stated formula; None without one of whole numbers.

        Raises:
          ValueError: two are stated.
        """
        text = self.once(_FORMULA)
        return _counts(text) if text else None

    def compared_with_formula(self, species: np.ndarray) -> tuple[str, str]:
        """What keeps the atoms from being those of the formula, and what is to be noted; empty
        where there is nothing. A file cut between two atoms parses without error."""
        stated = self.formula()
        if stated is None:
            return "", ""
        found = Counter(species.tolist())
        text, atoms = self.once(_FORMULA), _text(found)
        if _reduced(stated) == _reduced(found):
            units = gemmi.cif.as_number(self.once(_UNITS) or "?")
            # The formula is that of a unit, or of the whole cell, as some programs write it.
            totals = [units * sum(counts.values()) for counts in (stated, _reduced(stated))]
            if units == units and len(species) not in totals:
                return (
                    f"{units:g} units of {text} (_cell_formula_units_Z) are not the {len(species)} "
                    f"atoms of the cell, {atoms}: check the symmetry"
                ), ""
            return "", ""
        without_h = [Counter({z: n for z, n in c.items() if z != 1}) for c in (stated, found)]
        if without_h[0] and without_h[1] and _reduced(without_h[0]) == _reduced(without_h[1]):
            return "", f"hydrogen is missing: the formula is {text}, the atoms are {atoms}"
        message = f"states the formula {text} and has the atoms {atoms}"
        if _is_substitution(stated, found):
            return "", message
        return f"it {message}: atoms or operations are missing, or the formula is wrong", ""


def _shown(text: str) -> str:
    """A coordinate as it stands in the file; in quotes where it is no number."""
    return text if np.isfinite(gemmi.cif.as_number(text)) else repr(text)


def _occupancy(text: str) -> float:
    """1 where nothing is said; NaN where it is no number."""
    return 1.0 if text in _NOTHING else gemmi.cif.as_number(text)


def _of_label(label: str, formula: Counter[int]) -> int | None:
    """Atomic number of a site without a type, by its label; None where that is no element.

    Of labels that are groups of atoms, such as ``CO3`` and ``OH``, the first atom counts where the
    formula has it, and has no element of both letters.
    """
    letters = re.match(r"[A-Za-z]*", label)[0]  # type: ignore[index]
    if len(letters) > 2:
        return None
    number = _NUMBERS.get(letters.capitalize())
    if len(letters) == 2 and letters.isupper() and {*letters} <= set(_NUMBERS):
        # HO1 may be holmium, or a hydrogen of oxygen O1.
        if number is None or (formula and number not in formula):
            single = _NUMBERS[letters[0]]
            return single if single in formula else None
    return number


@functools.lru_cache(maxsize=1000)
def _of_type(symbol: str) -> int | None:
    """Atomic number of a type of sites; None where that is no element, see `_of_label`."""
    match = _TYPE.match(symbol)
    if match is None:
        return None
    letters = match[1]
    if len(letters) == 2 and letters.isupper() and letters != symbol:
        # FE3+ is iron; CO3, of two elements and a count, is not cobalt.
        if "+" not in symbol and "-" not in symbol and {*letters} <= set(_NUMBERS):
            return None
    return _NUMBERS.get(letters.capitalize())


def _expand(
    sites: Sites, operations: Sequence[gemmi.Op], cell: gemmi.UnitCell, distances: bool = False
) -> Atoms:
    """Every image of every site, each once.

    Raises:
      ValueError: there would be over `MAX_ATOMS`.
    """
    axes = _axes(cell)
    numbers, coords = sites
    if len(numbers) * len(operations) > MAX_ATOMS:
        raise ValueError(
            f"{len(numbers)} sites and {len(operations)} operations of symmetry make over "
            f"{MAX_ATOMS} atoms"
        )
    if len(operations) == 1:
        images, owner = coords, np.arange(len(coords))
    else:
        rotations = np.array([op.rot for op in operations]) / gemmi.Op.DEN
        shifts = np.array([op.tran for op in operations]) / gemmi.Op.DEN
        orbits = [_orbit(rotations @ site + shifts, axes) for site in coords]
        images = np.concatenate(orbits)
        owner = np.repeat(np.arange(len(orbits)), [len(orbit) for orbit in orbits])
    merged = _merged(numbers, coords, images, owner, axes)
    if merged:
        kept = ~np.isin(owner, list(merged))
        images, owner = images[kept], owner[kept]
    closest = _closest(numbers, images, owner, axes.lattice) if distances else np.inf
    return Atoms(numbers[owner], images, closest, len(merged))


class _Axes(NamedTuple):
    """Of a cell.

    Attributes:
      lattice: ``[3, 3]``, lattice vectors as rows, Å.
      reach: ``[3]``, 1/Å: what a vector of 1 Å may have of each fractional coordinate at most.
    """

    lattice: np.ndarray
    reach: np.ndarray


def _axes(cell: gemmi.UnitCell) -> _Axes:
    reciprocal = cell.reciprocal()
    lattice = np.array(cell.orth.mat.tolist()).T
    return _Axes(lattice, np.array([reciprocal.a, reciprocal.b, reciprocal.c]))


def _near(
    one: np.ndarray, other: np.ndarray, axes: _Axes, distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of places, or their nearest images, that are closer than a distance.

    Args:
      one: ``[n, 3]``, fractional.
      other: ``[m, 3]``, fractional.
      axes: of the cell.
      distance: Å.

    Returns:
      ``[pairs]``, ``[pairs]``: indices in both, in the order of the first, then of the second.
    """
    step = max(1, 200_000 // len(other))  # some 10 MB at a time
    limits = (distance * axes.reach)[:, None, None]
    columns = np.ascontiguousarray(other.T)[:, None, :]
    found = []
    for start in range(0, len(one), step):
        difference = one[start : start + step].T[:, :, None] - columns
        difference -= np.rint(difference)
        # Nearly all are far apart along one axis, of which the length need not be known.
        rows, others = np.nonzero((np.abs(difference) < limits).all(axis=0))
        apart = difference[:, rows, others].T @ axes.lattice
        near = (apart * apart).sum(axis=1) < distance**2
        found.append((start + rows[near], others[near]))
    ours, theirs = zip(*found)
    return np.concatenate(ours), np.concatenate(theirs)


def _orbit(images: np.ndarray, axes: _Axes) -> np.ndarray:
    """The images of a site without those that an earlier one is in the place of."""
    later, earlier = _near(images, images, axes, MERGE_DISTANCE)
    return np.delete(images, later[earlier < later], axis=0)


def _merged(
    numbers: np.ndarray, coords: np.ndarray, images: np.ndarray, owner: np.ndarray, axes: _Axes
) -> set[int]:
    """The sites that are in the place of an image of an earlier site of their element.

    Args:
      numbers: ``[n]``, atomic numbers.
      coords: ``[n, 3]``, fractional.
      images: ``[m, 3]``, of all sites.
      owner: ``[m]``, the site that each is an image of.
      axes: of the cell.
    """
    sites, near = _near(coords, images, axes, SAME_SITE)
    earlier = owner[near]
    same = (earlier < sites) & (numbers[earlier] == numbers[sites])
    merged: set[int] = set()
    for site, other in zip(sites[same].tolist(), earlier[same].tolist()):
        if other not in merged:
            merged.add(site)
    return merged


def _closest(
    numbers: np.ndarray, images: np.ndarray, owner: np.ndarray, lattice: np.ndarray
) -> float:
    """The least distance of any two atoms, in parts of the sum of their covalent radii; by one
    atom of each site, for the others are its images. Args as of `_merged`."""
    radius = np.array([gemmi.Element(z).covalent_r for z in range(len(SYMBOLS))])
    shifts = np.array(np.meshgrid(*[[-1, 0, 1]] * 3)).reshape(3, -1).T @ lattice
    least = np.inf
    species = numbers[owner]
    for first in np.unique(owner, return_index=True)[1]:
        difference = images - images[first]
        vectors = (difference - np.round(difference)) @ lattice
        lengths = np.linalg.norm(vectors[:, None] + shifts, axis=-1)
        lengths[lengths < 1e-3] = np.inf  # the atom itself
        least = min(
            least, float((lengths.min(axis=1) / (radius[species] + radius[species[first]])).min())
        )
    return least


def _same_crystal(one: Atoms, other: Atoms, cell: gemmi.UnitCell) -> bool:
    """Whether two sets of atoms have the same distances: a shift or a mirror apart."""
    if Counter(one.species.tolist()) != Counter(other.species.tolist()) or len(one.species) > 500:
        return False
    lattice = _axes(cell).lattice

    def distances(atoms: Atoms) -> np.ndarray:
        difference = atoms.coords[:, None] - atoms.coords[None]
        lengths = np.linalg.norm((difference - np.round(difference)) @ lattice, axis=-1)
        kinds = atoms.species[:, None].astype(int) * atoms.species[None]
        # 1000 Å are more than any cell has: kinds of pairs stay apart in the sorted list.
        return np.sort((lengths + 1000.0 * kinds).ravel())

    return bool(np.abs(distances(one) - distances(other)).max() < 0.01)


def _is_substitution(stated: Counter[int], found: Counter[int]) -> bool:
    """Whether atoms are those of a formula with others in the places of some: the formula is that
    of the parent. What a file cut short has is a part of its formula's elements."""
    if set(found) <= set(stated):
        return False
    if sorted(_reduced(stated).values()) == sorted(_reduced(found).values()):
        return True
    units = found.total() / stated.total()
    return abs(units - round(units)) < 0.05 * units


@functools.lru_cache(maxsize=1024)
def _counts(formula: str) -> Counter[int] | None:
    """Atomic number → count; None where a count is no whole number, or an element unknown."""
    counts: Counter[int] = Counter()
    text = re.sub(r"[\s,]", "", formula)
    if _PART.sub("", text):
        return None
    for symbol, count in _PART.findall(text):
        amount = float(count or 1)
        if amount != int(amount) or symbol not in _NUMBERS:
            return None
        counts[_NUMBERS[symbol]] += int(amount)
    return counts or None


def _text(counts: Counter[int]) -> str:
    return " ".join(f"{SYMBOLS[z]}{n}" for z, n in sorted(counts.items()))


def _reduced(counts: Counter[int]) -> dict[int, int]:
    divisor = gcd(*counts.values()) or 1
    return {z: n // divisor for z, n in counts.items()}
