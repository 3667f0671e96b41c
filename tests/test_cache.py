"""The cache's folder and locks."""

import stat
import subprocess
import sys

import pytest

from crysgnn_jax.cache import Lock, locked, make_cache_dir


def test_the_cache_is_its_users_alone(tmp_path):
    make_cache_dir(tmp_path / "new" / "cache")
    assert stat.S_IMODE((tmp_path / "new" / "cache").stat().st_mode) == 0o700
    # One that is there stays as it is.
    (tmp_path / "own").mkdir(mode=0o755)
    before = (tmp_path / "own").stat().st_mode
    make_cache_dir(tmp_path / "own")
    assert (tmp_path / "own").stat().st_mode == before


def test_a_link_in_the_place_of_a_lock_is_refused(tmp_path):
    (tmp_path / "precious").write_text("content")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="a link is in the place of its lock"):
        Lock(tmp_path / "lock").acquire(wait=False)
    assert (tmp_path / "precious").read_text() == "content"


def test_a_lock_keeps_others_out_and_its_file_as_it_is(tmp_path):
    (tmp_path / "lock").write_text("content")
    with locked(tmp_path / "lock"):
        assert not Lock(tmp_path / "lock").acquire(wait=False)
        code = "import sys; from crysgnn_jax.cache import Lock; from pathlib import Path\n"
        code += "sys.exit(Lock(Path(sys.argv[1])).acquire(wait=False))"
        words = [sys.executable, "-c", code, str(tmp_path / "lock")]
        assert subprocess.run(words, timeout=60).returncode == 0
    assert Lock(tmp_path / "lock").acquire(wait=False)
    assert (tmp_path / "lock").read_text() == "content"
