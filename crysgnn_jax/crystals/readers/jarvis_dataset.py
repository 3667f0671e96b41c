"""Data sets of JARVIS, downloaded by the ``jarvis-tools`` package: ``jarvis:NAME``."""

import contextlib
import difflib
import importlib
import os
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

from crysgnn_jax.crystals.readers.indexed import SpanSource
from crysgnn_jax.crystals.readers.items import one_line
from crysgnn_jax.crystals.readers.jarvis_json import jarvis_json
from crysgnn_jax.crystals.readers.kept import kept
from crysgnn_jax.errors import UserError
from crysgnn_jax.extras import require

SCHEME = "jarvis:"

_NO_MEMBER = "download"
"""No data set calls a file of its archive so."""


def jarvis_dataset(name: str) -> SpanSource:
    """The records of a data set of JARVIS, downloaded once.

    Args:
      name: as of ``jarvis.db.figshare``: ``dft_3d``, ``megnet`` (the Materials Project of
        2018.6.1), ``oqmd_3d_no_cfid``, ``mp_3d_2020``, …

    Raises:
      UserError: the package is missing, has no such data set, or the download fails or is damaged,
        and then removed.
    """
    source = f"{SCHEME}{name}"
    require("jarvis", "jarvis", source)
    figshare: Any = importlib.import_module("jarvis.db.figshare")
    known = figshare.get_db_info()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=5, cutoff=0.4) or sorted(known)[:5]
        raise UserError(f"`data` {source}: JARVIS has no such data set; near it: {', '.join(near)}")
    url, file = known[name][:2]
    path = kept(f"jarvis-{file}.zip", lambda draft: _download(figshare, source, url, draft))
    try:
        return jarvis_json(path, source)
    except UserError as error:
        path.unlink(missing_ok=True)
        raise UserError(
            f"{source}: the download is of no use ({error}); it is removed: run the command again"
        ) from None


def _download(figshare: Any, source: str, url: str, draft: Path) -> None:
    """Download an archive, and look whether it is whole.

    Raises:
      UserError: it is not.
    """
    print(f"{source}: downloading {url}", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=draft.parent) as folder:
        path = Path(folder, f"{_NO_MEMBER}.zip")
        # What it prints is not the command's output. It downloads, and then loads a file of the
        # archive whole; one that is not there keeps it from that.
        try:
            with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(KeyError):
                figshare.get_request_data(js_tag=_NO_MEMBER, url=url, store_dir=folder)
            with zipfile.ZipFile(path) as archive:
                if damaged := archive.testzip():
                    raise zipfile.BadZipFile(f"{damaged} has another checksum")
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            size = path.stat().st_size if path.exists() else 0
            raise UserError(
                f"{source}: what came from {url}, {size} bytes, is damaged or incomplete "
                f"({one_line(error)}); it is not kept: run the command again, or download the file "
                "and name it"
            ) from None
        except figshare.requests.RequestException as error:
            raise UserError(
                f"{source}: cannot be downloaded from {url} ({one_line(error)}); download the file "
                "and name it"
            ) from None
        os.replace(path, draft)
