"""The space group that a CIF file states, as lists of operations to choose from.

The order is: the operations themselves, then a Hall symbol, then a name that says its setting,
then a name or number alone. What the last two leave open, which of two origins, a hexagonal or a
rhombohedral cell, or which axis is the unique one, is for the cell and the atoms to decide.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import gemmi
import numpy as np

MAX_OPERATIONS = 1536
"""Operations that a file may list: 192 of the largest groups, in a cell of 8 of theirs."""

OPERATIONS = (
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_symmetry_equiv.pos_as_xyz",
)
MAGNETIC_OPERATIONS = (
    "_space_group_symop_magn_operation.xyz",
    "_space_group_symop.magn_operation_xyz",
    "_space_group_symop_magn_operation_xyz",
)
MAGNETIC_CENTRINGS = (
    "_space_group_symop_magn_centering.xyz",
    "_space_group_symop.magn_centering_xyz",
    "_space_group_symop_magn_centering_xyz",
)
HALL = (
    "_space_group_name_Hall",
    "_space_group.name_Hall",
    "_symmetry_space_group_name_Hall",
    "_symmetry.space_group_name_Hall",
)
NAMES = (
    "_space_group_name_H-M_alt",
    "_space_group.name_H-M_alt",
    "_symmetry_space_group_name_H-M",
    "_symmetry.space_group_name_H-M",
    "_space_group_name_H-M_full",
    "_space_group.name_H-M_full",
    "_space_group_name_H-M_ref",
    "_space_group.name_H-M_ref",
)
NUMBERS = (
    "_space_group_IT_number",
    "_space_group.IT_number",
    "_symmetry_Int_Tables_number",
    "_symmetry.Int_Tables_number",
)
CODES = ("_space_group_IT_coordinate_system_code", "_space_group.IT_coordinate_system_code")

TAGS = (
    *(*OPERATIONS, *MAGNETIC_OPERATIONS, *MAGNETIC_CENTRINGS, *HALL),
    *(*NAMES, *NUMBERS, *CODES),
)
"""Every tag that may say what the space group is."""

_EXTENSIONS = {"1": "1", "2": "2", "S": "1", "Z": "2", "H": "H", "R": "R", "O1": "1", "O2": "2"}
"""Endings of names → origin or cell, as gemmi calls them; ``S`` and ``Z`` are those of ICSD."""

_ENDING = re.compile(
    r"\s*(?::\s*(?P<colon>[12SZHR])"
    r"|\s(?P<letter>O?[12]|[SZHR])"
    r"|\(?\s*origin\s*(?:choice|at)?\s*(?P<origin>[12])\s*\)?"
    r"|\(?\s*(?P<axes>hexagonal|rhombohedral)\s*(?:axes|setting|cell)?\s*\)?)\s*$",
    re.IGNORECASE,
)


class Setting(NamedTuple):
    """A space group with origin and axes.

    Attributes:
      name: for messages.
      operations: of the whole group, the centring included.
    """

    name: str
    operations: Sequence[gemmi.Op]


class Stated(NamedTuple):
    """What a file says of its symmetry.

    Attributes:
      settings: one where the file leaves no choice, several where atoms or cell have to decide;
        empty where it says nothing.
      source: what of the file it was read from: "operations", "Hall symbol", "name", "number".
      named: the settings of the group that it names beside its operations.
      magnetic: whether the operations are those of a magnetic structure.
    """

    settings: Sequence[Setting]
    source: str
    named: Sequence[Setting] = ()
    magnetic: bool = False


def stated_symmetry(values: Callable[[str], list[str]], cell: gemmi.UnitCell) -> Stated:
    """Read what a CIF block says of its space group.

    Args:
      values: tag → its values in the block, unquoted; empty where it has none.
      cell: of the block.

    Raises:
      ValueError: an operation, symbol, name or number is none, or there are too many operations.
    """

    def first(tags: Sequence[str]) -> list[str]:
        return next((found for tag in tags if (found := values(tag))), [])

    listed = first(OPERATIONS)
    magnetic = [] if listed else first(MAGNETIC_OPERATIONS)
    if listed or magnetic:
        operations = _operations(listed or magnetic, first(MAGNETIC_CENTRINGS) if magnetic else [])
        named: Sequence[Setting] = ()
        names = first(NAMES)
        if len(operations) == 1 and names[:1] not in (["P 1"], ["P1"]):
            named, _ = _by_name_or_number(names, first(NUMBERS), first(CODES), cell)
        return Stated([Setting("", operations)], "operations", named, bool(magnetic))
    for symbol in first(HALL)[:1]:
        try:
            found = list(gemmi.symops_from_hall(symbol))
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"unknown Hall symbol {symbol!r} ({error})") from None
        return Stated([Setting(symbol, found)], "Hall symbol")
    names, numbers = first(NAMES), first(NUMBERS)
    settings, source = _by_name_or_number(names, numbers, first(CODES), cell)
    if not settings and names:
        raise ValueError(f"unknown space group {names[0]!r} and no list of operations")
    if not settings and numbers:
        raise ValueError(f"space group number {numbers[0]!r} is none of 1 to 230")
    return Stated(settings, source)


def _operations(listed: Sequence[str], centrings: Sequence[str]) -> list[gemmi.Op]:
    """Operations without what they do to moments, in the order of the file, each once."""
    texts = list(dict.fromkeys(",".join(text.split(",")[:3]) for text in listed))
    shifts = list(dict.fromkeys(",".join(text.split(",")[:3]) for text in centrings)) or ["x,y,z"]
    n_listed = max(len(listed), len(centrings), len(texts) * len(shifts))
    if n_listed > MAX_OPERATIONS:
        raise ValueError(
            f"it lists {n_listed} operations of symmetry; no space group has over 192, and up to "
            f"{MAX_OPERATIONS} are read"
        )
    found: dict[str, gemmi.Op] = {}
    for shift in map(_operation, shifts):
        for operation in map(_operation, texts):
            combined = (shift * operation).wrap()
            found.setdefault(combined.triplet(), combined)
    return list(found.values())


def _operation(text: str) -> gemmi.Op:
    try:
        return gemmi.Op(text)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{text!r} is no operation of symmetry ({error})") from None


def _by_name_or_number(
    names: Sequence[str], numbers: Sequence[str], codes: Sequence[str], cell: gemmi.UnitCell
) -> tuple[list[Setting], str]:
    """The settings that a name, or else a number, allows; and which of the two it was."""
    number = next((int(text) for text in numbers if text.strip().isdigit()), 0)
    for name in names:
        settings = settings_of_name(name, cell)
        if settings:
            chosen = [group for group in settings if str(group.ext) == _code(codes)] or settings
            if number and all(group.number != number for group in chosen):
                raise ValueError(
                    f"it names the space group {name!r}, which is number {chosen[0].number}, and "
                    f"gives the number {number}"
                )
            return _as_settings(chosen), "name"
    if names and not number:
        return [], "name"
    groups = settings_of_number(number, cell) if 1 <= number <= 230 else []
    groups = [group for group in groups if str(group.ext) == _code(codes)] or groups
    return _as_settings(groups), "number"


def _code(codes: Sequence[str]) -> str:
    """Origin or cell that the coordinate system code of International Tables means."""
    return _EXTENSIONS.get(codes[0].strip().upper(), "") if codes else ""


def _as_settings(groups: Sequence[gemmi.SpaceGroup]) -> list[Setting]:
    return [Setting(group.xhm(), list(group.operations())) for group in groups]


def settings_of_name(name: str, cell: gemmi.UnitCell) -> list[gemmi.SpaceGroup]:
    """The settings that a Hermann–Mauguin name stands for.

    One, where the name says origin and cell or the group has but one; else both. Known are the
    names of International Tables, short, full and of before 1992, with or without spaces, and
    the endings of ICSD and others: ``F d -3 m Z``, ``F d -3 m :2``, ``R -3 m H``.
    """
    # A trailing digit or letter may be part of the name (P 2, P 21 3) or tell the origin: the
    # whole name comes first.
    for stem, extension in _readings(name):
        group = _lookup(stem, cell)
        if group is not None:
            both = [g for g in _table(group.number) if g.hm == group.hm]
            return [g for g in both if g.ext == extension] or ([group] if extension else both)
    return []


def _readings(name: str) -> list[tuple[str, str]]:
    """A name as stem and ending, the likelier first."""
    plain = name.replace("_", " ").strip()
    found = []
    ending = _ENDING.search(plain)
    if ending:
        key = next(text for text in ending.groups() if text).upper()
        extension = {"HEXAGONAL": "H", "RHOMBOHEDRAL": "R"}.get(key) or _EXTENSIONS[key]
        # "P 2" and "P 4 2" end with digits of their own; a colon or words cannot.
        sure = ending["letter"] is None or key in ("S", "Z", "H", "R", "O1", "O2")
        split = (plain[: ending.start()], extension)
        found = [split, (plain, "")] if sure else [(plain, ""), split]
    else:
        found = [(plain, "")]
        if plain[-1:].upper() in ("S", "Z", "H", "R"):
            found.append((plain[:-1], _EXTENSIONS[plain[-1].upper()]))
    return found


def _lookup(name: str, cell: gemmi.UnitCell) -> gemmi.SpaceGroup | None:
    """A space group by its name, also by the full one: ``P 21/m 21/m 2/n`` for ``P m m n``."""
    words = name.split()
    short = [word.rpartition("/")[2] for word in words]
    for variant in (words, [*words[:2], *short[2:]], [*words[:1], *short[1:]]):
        group = gemmi.find_spacegroup_by_name(" ".join(variant), cell.alpha, cell.gamma)
        if group is not None:
            return group
    return None


def settings_of_number(number: int, cell: gemmi.UnitCell) -> list[gemmi.SpaceGroup]:
    """The settings that a number of International Tables, 1…230, stands for: the conventional
    axes, of monoclinic groups with the unique axis of the cell, and both origins or cells."""
    table = _table(number)
    reference = gemmi.get_spacegroup_reference_setting(number)
    if 3 <= number <= 15:
        angles = np.array([cell.alpha, cell.beta, cell.gamma])
        oblique = np.abs(angles - 90) > 0.01
        if oblique.sum() == 1 and not oblique[1]:
            axis = "abc"[int(np.argmax(oblique))]
            found = [g for g in table if g.qualifier in (axis, f"{axis}1")]
            return found[:1] or [reference]
        return [reference]
    return [group for group in table if group.hm == reference.hm]


@functools.cache
def _table(number: int) -> list[gemmi.SpaceGroup]:
    """Every setting of a space group that gemmi knows."""
    return [group for group in gemmi.spacegroup_table() if group.number == number]


def fits_cell(
    operations: Sequence[gemmi.Op], cell: gemmi.UnitCell, tolerance: float = 0.02
) -> bool:
    """Whether every operation keeps all lengths and angles.

    Args:
      operations: of the space group.
      cell: the unit cell.
      tolerance: by which entries of the metric tensor may differ, in parts of the lengths squared;
        0.02 lets a length be off by 1 % and an angle by a degree.
    """
    if len(operations) == 1:  # the identity
        return True
    lattice = np.array(cell.orth.mat.tolist()).T
    metric = lattice @ lattice.T
    scale = np.sqrt(np.outer(np.diag(metric), np.diag(metric)))
    rotations = np.unique(np.array([op.rot for op in operations]) / gemmi.Op.DEN, axis=0)
    moved = np.swapaxes(rotations, 1, 2) @ metric @ rotations
    # Axes that change places are compared with where they come to lie.
    return bool((np.abs(moved - metric) <= tolerance * scale).all())
