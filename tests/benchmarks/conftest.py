"""Toy crystals as sources and graphs for the benchmarks."""

import pytest

from benchmarks import steps
from crysgnn_jax.graphs.settings import FeaturiserSettings
from toys import collection


class Crystals:
    """Crystals in memory as a source."""

    name = "toys"
    label_names = ()
    decode = staticmethod(lambda crystal: crystal)

    def __init__(self, crystals):
        self._crystals = crystals

    def __len__(self):
        return len(self._crystals)

    def fingerprint(self):
        return f"toys {len(self)}"

    def items(self, start, stop):
        return self._crystals[start:stop]


@pytest.fixture(scope="session")
def source():
    """n → a source of n crystals."""
    return lambda n: Crystals(collection(n))


@pytest.fixture(scope="session")
def case_for(tmp_path_factory, source):
    """job → 20 crystals as graphs of its kind."""
    cache = tmp_path_factory.mktemp("graphs")
    return lambda job: steps.case_of(
        source(20), FeaturiserSettings(**steps.JOBS[job].graphs), cache, workers=1
    )
