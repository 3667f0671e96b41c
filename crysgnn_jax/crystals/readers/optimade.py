"""Any OPTIMADE database, through the client of ``optimade-python-tools``: ``optimade:URL``."""

import contextlib
import hashlib
import importlib
import io
import re
import sys
import urllib.parse
from pathlib import Path
from typing import Any

from crysgnn_jax.crystals.readers.indexed import SpanSource
from crysgnn_jax.crystals.readers.items import one_line
from crysgnn_jax.crystals.readers.jarvis_json import jarvis_json
from crysgnn_jax.crystals.readers.kept import Paged, kept
from crysgnn_jax.errors import UserError
from crysgnn_jax.extras import require

SCHEME = "optimade:"

FIELDS = (
    *("lattice_vectors", "cartesian_site_positions", "species_at_sites", "species"),
    *("nsites", "dimension_types", "structure_features"),
)
"""What is asked for of each structure, beside the numbers of the provider's own."""

PAGES = (500, 100, None)
"""Structures that are asked for at once: the most that the server allows; None: its own choice."""

_REFUSED = re.compile(r"RuntimeError: 4\d\d ")
"""How the client tells that the server does not take the request."""

_ADDRESS = re.compile(r"- https?://\S+: ")

_END = re.compile(r"/(v\d[\d.]*/?)?(structures/?)?$")


def optimade(address: str) -> SpanSource:
    """The structures of an OPTIMADE database, with the properties that only it has, such as
    ``_oqmd_delta_e``; downloaded once, page by page.

    Args:
      address: the base address of the database, and a filter of the specification's if need be:
        ``https://optimade.odbx.science?filter=nelements=2 AND elements HAS "Li"``.

    Raises:
      UserError: the address is none, the package is missing, the download fails, or nothing fits.
    """
    source = f"{SCHEME}{address}"
    base, _, query = address.partition("?")
    if not base.startswith(("http://", "https://")):
        raise UserError(
            f"`data` {source}: give the base address of a database, such as "
            "optimade:https://optimade.materialsproject.org"
        )
    if query and not query.startswith("filter="):
        raise UserError(f"`data` {source}: after ? comes filter=…, and nothing else is taken")
    base = _END.sub("", base)
    where = urllib.parse.unquote(query.removeprefix("filter="))
    digest = hashlib.blake2b(f"{base}\0{where}".encode(), digest_size=8).hexdigest()
    path = kept(f"optimade-{digest}.jsonl", lambda draft: _download(source, base, where, draft))
    return jarvis_json(path, source)


class _Pages:
    """Takes the client's pages.

    Attributes:
      promised: how many structures there should be, as the server says; None where it does not.
      more: whether the server has more.
    """

    def __init__(self, source: str, pages: Paged):
        self.promised, self.more = None, False
        self._source, self._pages, self._terminal = source, pages, sys.stderr

    def __call__(self, url: str, page: dict[str, Any]) -> None:
        following = page["links"].get("next")
        following = following["href"] if isinstance(following, dict) else following
        self._pages.add(page["data"], following)
        self.promised = page["meta"].get("data_returned")
        self.more = bool(page["meta"].get("more_data_available"))
        # The client gathers the entries of all pages: it need not, and counts them only.
        page["data"] = [{}] * len(page["data"])
        of = f" of {self.promised}" if self.promised is not None else ""
        print(f"{self._source}: {self._pages.n}{of} structures", file=self._terminal)


def _download(source: str, base: str, where: str, draft: Path) -> None:
    require("optimade", "optimade", source)
    try:
        client: Any = importlib.import_module("optimade.client")
    except ImportError:  # it is installed without what its client needs
        raise UserError(
            f"{source} needs optimade's client; install it by pip install 'crysgnn-jax[optimade]'"
        ) from None
    with Paged(draft, {"database": base, "filter": where}) as pages:
        taken = _Pages(source, pages)
        errors: list[str] = []
        for size in PAGES if not pages.n or pages.next else ():
            try:
                # What the client prints it returns as well.
                with contextlib.redirect_stderr(io.StringIO()):
                    errors = _query(client.OptimadeClient, base, where, size, pages, taken)
            except Exception as error:  # of the client, on a filter or an answer that is none
                errors = [one_line(error)]
            if pages.n or not errors or not _REFUSED.match(errors[0]):
                break
        if not errors and (taken.more or pages.n < (taken.promised or 0)):
            errors = [f"the server ended after {pages.n} of {taken.promised or 'more'} structures"]
            pages.drop()
        if errors:
            said = one_line(Exception(_ADDRESS.sub("", errors[0])))
            raise UserError(
                f"{source}: cannot be downloaded ({said}); look after the address and the filter, "
                "or run it again: it goes on where it stopped"
            )
        if not pages.n:
            raise UserError(f"{source}: no structure fits; mend the filter")
        pages.finish()


def _query(
    client_class: Any, base: str, where: str, size: int | None, pages: Paged, taken: _Pages
) -> list[str]:
    """Ask for all pages that are not there yet; returns what the client says went wrong."""
    # It wants to know how many there may be at most.
    client = client_class(
        base_urls=[base], max_results_per_provider=10**9, use_async=False, silent=True
    )
    fields: list[str] | None = None
    try:
        (known,) = client.list_properties("structures").values()
        fields = [*FIELDS, *(name for name in known if name.startswith("_"))] if known else None
    except AttributeError:  # it was told no properties: the server then sends what it likes
        fields = None
    client.callbacks = [taken]
    how = {"page_limit": size, "response_fields": fields, "override_url": pages.next}
    (found,) = client.get_one("structures", where, base, **how).values()
    return [str(error) for error in found.errors]
