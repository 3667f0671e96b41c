"""What a network needs of its batches."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from crysgnn_jax.errors import UserError
from crysgnn_jax.graphs.settings import FeaturiserSettings

EDGE_COLUMNS = ("distances", "vectors")
LISTS = ("pairs", "triplets")


@dataclasses.dataclass(frozen=True)
class Needs:
    """What the batches of a network must hold.

    Attributes:
      edges: columns of ``graph.edges`` that it reads: ``distances`` [n_edge] and ``vectors``
        [n_edge, 3], Å.
      lists: ``pairs`` of atoms, ``triplets`` of edges with the cosines of their angles.
      reduced: whether it takes reduced graphs (`graphs.reduction`), in which a node stands for all
        equivalent atoms: true of a network whose sums over atoms and edges all go through `Rows`
        and `Links`. That saves two thirds of the work. Reduced graphs have no vectors.
      graphs: fields of `FeaturiserSettings` that differ from the default graph.

    Raises:
      UserError: a column, list or field of the settings that there is not.

    Example:
      ``Needs(reduced=True, graphs={"cutoff": 6.0})``
    """

    edges: tuple[str, ...] = ("distances",)
    lists: tuple[str, ...] = ()
    reduced: bool = False
    graphs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        fields = tuple(field.name for field in dataclasses.fields(FeaturiserSettings))
        for name, values, known in (
            ("edges", self.edges, EDGE_COLUMNS),
            ("lists", self.lists, LISTS),
            ("graphs", self.graphs, fields),
        ):
            for value in values:
                if value not in known:
                    raise UserError(f"Needs({name}={value!r}): there is {', '.join(known)}")
        if self.reduced and "vectors" in self.edges:
            raise UserError("Needs(reduced=True): reduced graphs have no vectors")

    @property
    def budgeted(self) -> tuple[str, ...]:
        """The lists whose lengths a batch has room for: pairs are also laid out in blocks."""
        return tuple(n for name in self.lists for n in _BUDGETED[name])

    @property
    def tight(self) -> tuple[str, ...]:
        """The quantities that decide what a step costs: triplets, where there are any."""
        return ("triplets",) if "triplets" in self.lists else ("nodes", "edges")


_BUDGETED = {"pairs": ("blocks", "pairs"), "triplets": ("triplets",)}
