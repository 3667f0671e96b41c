"""The Materials Project, through its own client ``mp-api``: ``mp:QUERY``."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crysgnn_jax.crystals.readers.indexed import SpanSource
from crysgnn_jax.crystals.readers.items import one_line
from crysgnn_jax.crystals.readers.jarvis_json import jarvis_json
from crysgnn_jax.crystals.readers.kept import Paged, kept
from crysgnn_jax.errors import UserError
from crysgnn_jax.extras import require

SCHEME = "mp:"
KEY = "MP_API_KEY"
"""Of the environment: the user's key. It is in no file, name or message."""

PAGE = 1000
"""Crystals that are asked for at once."""

CRITERIA = ("elements", "exclude_elements", "chemsys", "formula")
NUMBERS = (
    *("formation_energy_per_atom", "energy_above_hull", "energy_per_atom", "band_gap", "efermi"),
    *("total_magnetization", "density"),
)
MODULI = ("bulk_modulus", "shear_modulus")
"""Of which Hill's mean is taken, GPa."""


def materials_project(query: str) -> SpanSource:
    """Crystals of the Materials Project with their properties, downloaded once.

    Args:
      query: nothing, for all; or criteria, such as ``elements=Li,O`` or
        ``chemsys=Li-O&exclude_elements=H``: those of `CRITERIA`.

    Raises:
      UserError: the query is none, the package or the key is missing, the download fails, or
        nothing fits.
    """
    source = f"{SCHEME}{query}"
    criteria = _criteria(source, query)
    text = json.dumps(criteria, sort_keys=True)
    digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    path = kept(f"mp-{digest}.jsonl", lambda draft: _download(source, criteria, draft))
    return jarvis_json(path, source)


def _criteria(source: str, query: str) -> dict[str, list[str]]:
    found = {}
    for part in filter(None, query.split("&")):
        name, _, value = part.partition("=")
        values = [text.strip() for text in value.split(",") if text.strip()]
        if name not in CRITERIA or not values:
            raise UserError(
                f"`data` {source}: {part!r} is no criterion; give {', '.join(CRITERIA)}, such as "
                "mp:elements=Li,O"
            )
        found[name] = values
    return found


def _download(source: str, criteria: Mapping[str, list[str]], draft: Path) -> None:
    require("mp_api", "mp", source)
    key = os.environ.get(KEY, "")
    if not key:
        raise UserError(
            f"`data` {source}: the Materials Project asks for a key; put yours, of "
            f"materialsproject.org/api, into the environment: export {KEY}=…"
        )
    # Not the documents that it can make: dicts go to the file as they come.
    from mp_api.client import MPRester

    try:
        with MPRester(key, use_document_model=False, mute_progress_bars=True) as client:
            about = {"database": str(client.db_version), "query": dict(criteria)}
            with Paged(draft, about) as pages:
                first = None
                while True:
                    page = pages.next or 1
                    found = client.materials.summary.search(
                        **criteria,
                        deprecated=False,
                        fields=["material_id", "structure", *NUMBERS, *MODULI],
                        num_chunks=1,
                        chunk_size=PAGE,
                        _page=page,
                        _sort_fields="material_id",
                    )
                    records = [_record(document) for document in found]
                    if not records:
                        break
                    if records[0]["material_id"] == first:
                        raise ValueError("the same page came twice")
                    first = records[0]["material_id"]
                    pages.add(records, page + 1)
                    print(f"{source}: {pages.n} crystals", file=sys.stderr)
                if not pages.n:
                    raise UserError(f"{source}: no crystal fits; mend the query")
                pages.finish()
    except UserError:
        raise
    except Exception as error:  # of the client, of what it uses, of the network
        said = one_line(Exception(str(error).replace(key, "…")))
        raise UserError(
            f"{source}: cannot be downloaded ({said}); run it again: it goes on where it stopped"
        ) from None


def _record(document: Any) -> dict[str, Any]:
    """A material as one of the records that `records` reads."""
    fields = document if isinstance(document, Mapping) else vars(document)
    structure = fields["structure"]
    found = {
        "material_id": str(fields["material_id"]),
        "structure": structure.as_dict() if hasattr(structure, "as_dict") else structure,
    }
    for name in NUMBERS:
        if fields.get(name) is not None:
            found[name] = float(fields[name])
    for name in MODULI:
        modulus = fields.get(name)
        if isinstance(modulus, Mapping) and modulus.get("vrh") is not None:
            found[f"{name}_vrh"] = float(modulus["vrh"])
    return found
