"""How crystals become graphs: the settings that travel with stores and checkpoints."""

import dataclasses

from crysgnn_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class FeaturiserSettings:
    """Settings of the crystal graph.

    Attributes:
      n_neighbours: edges an atom receives, those tied with the last not counted; with ``bonds``
        it receives more.
      cutoff: Å; with ``nearest``, neighbours farther away are never edges.
      ties: ``keep`` adds every neighbour tied with the last one, which makes the graph
        independent of the order of the atoms; ``cut`` takes exactly ``n_neighbours``, as the
        published codes do, and decides between tied neighbours by input order.
      tie_tolerance: Å; two distances closer than this are tied.
      symprec: Å; tolerance of the space-group search.
      rule: ``nearest`` gives an atom edges from its nearest neighbours within the cutoff.
        ``bonds`` is the rule of ALIGNN: the cutoff grows until no atom of the crystal has fewer
        than ``n_neighbours``, ties are kept, and an edge that either of its atoms asks for leads
        both ways, so that degrees vary.
    """

    n_neighbours: int = 12
    cutoff: float = 8.0
    ties: str = "keep"
    tie_tolerance: float = 1e-3
    symprec: float = 0.01
    rule: str = "nearest"

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
