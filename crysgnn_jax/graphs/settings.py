"""How crystals become graphs: the settings that travel with stores and checkpoints; and defaults
that flags tell of, without NumPy."""

import dataclasses
from typing import Any

from crysgnn_jax.errors import UserError
from crysgnn_jax.settings import setting

MAX_ATOMS = 5000
"""Atoms of a crystal. A graph network looks at neighbours, so that larger cells are those of
proteins or of disorder; and the symmetry search takes minutes for them."""

TOLERANCE = 0.015
"""Of lengths, see `duplicates`: two crystals whose cube roots of the volume per atom differ by less
than 1.5 %, and whose distances do but for `looks.DISPLACEMENT`, look alike. Of 3,000 crystals of
the Materials Project, relaxed for its releases of 2018 and 2025, 86 % agree to this and 84 % are
found to be the same structure; 76 % and 74 % to 1 %. Among 32,687 of the former, 1,106 look like an
earlier one and 88 are the same as one; the formation energies of these pairs differ by 0.002 and
0.0003 eV/atom in the median, by 0.019 and 0.006 at the 95th percentile."""

MOST_TOLERANCE = 0.1
"""Beyond it crystals are compared that have little more in common than their formula, and the
choices of lattice vectors that are as good as equal are too many to look through."""

CRYSTALS_A_SHARD = 8192
"""Some 20 MB, and 120 files for a million crystals: each is an open file of a process that reads
the set."""


@dataclasses.dataclass(frozen=True)
class FeaturiserSettings:
    """Settings of the crystal graph. See each field's help.

    With ``rule="nearest"`` an atom has edges from its nearest neighbours within the cutoff.
    ``ties="keep"`` adds every neighbour tied with the last one, which makes the graph independent
    of the order of the atoms; ``cut`` takes exactly ``n_neighbours``, and decides between tied
    neighbours by input order. ``rule="bonds"`` is ALIGNN's: the cutoff grows until no atom of the
    crystal has fewer than ``n_neighbours``, ties are kept, and an edge that either of its atoms
    asks for leads both ways, so that degrees vary.

    Raises:
      UserError: a value is out of range, or two of them do not go together.

    Example:
      ``FeaturiserSettings(cutoff=6.0)``
    """

    n_neighbours: int = setting(
        12, "nearest neighbours that an atom is connected to", kind="positive int"
    )
    cutoff: float = setting(
        8.0, "distance beyond which no atom is a neighbour", kind="positive", unit="Å"
    )
    ties: str = setting(
        "keep",
        "keep every neighbour tied with the last, or cut at exactly N by input order as the "
        "published codes do",
        choices=("keep", "cut"),
    )
    tie_tolerance: float = setting(
        1e-3, "distances closer than this are tied", kind="not negative", unit="Å"
    )
    symprec: float = setting(0.01, "tolerance of the space-group search", kind="positive", unit="Å")
    rule: str = setting(
        "nearest",
        "edges from each atom's nearest neighbours, or ALIGNN's bonds, in both directions and "
        "with a cutoff that grows where there are too few (default nearest; alignn: bonds)",
        choices=("nearest", "bonds"),
    )

    def __post_init__(self):
        if self.ties not in ("keep", "cut"):
            raise UserError(f"ties={self.ties!r} is not a rule; take 'keep' or 'cut'")
        if self.rule not in ("nearest", "bonds"):
            raise UserError(f"rule={self.rule!r} is not a rule; take 'nearest' or 'bonds'")
        if self.rule == "bonds" and self.ties != "keep":
            raise UserError(
                f"rule={self.rule!r} keeps tied neighbours, and ties={self.ties!r} does not; take "
                "ties='keep'"
            )
        for name in ("n_neighbours", "cutoff", "symprec"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}={getattr(self, name)!r} must be greater than 0")
        if self.tie_tolerance < 0:
            raise UserError(f"tie_tolerance={self.tie_tolerance!r} must not be negative")

    def plain(self) -> dict[str, Any]:
        """The fields as JSON values, such that equal settings (8 and 8.0) are the same text."""
        return {
            name: type(default)(getattr(self, name))
            for name, default in dataclasses.asdict(FeaturiserSettings()).items()
        }

    def require(self, other: "FeaturiserSettings", whose: str) -> None:
        """Check that ``other``, the settings of ``whose``, equals this one.

        Raises:
          UserError: names the first setting that differs, and both values.
        """
        for field in dataclasses.fields(self):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            if mine != theirs:
                raise UserError(
                    f"graphs were built with {field.name}={mine!r} but {whose} was made with "
                    f"{field.name}={theirs!r}; build them with the same value"
                )
