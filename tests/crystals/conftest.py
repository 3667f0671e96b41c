"""What is unpacked and downloaded goes to a folder of each test's own."""

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """Where it is kept."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("CRYSGNN_CACHE", str(folder))
    return folder / "sources"
