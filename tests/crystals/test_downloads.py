"""Data that are downloaded, from servers that the tests start."""

import contextlib
import functools
import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
import types
import urllib.parse
import urllib.request
import zipfile

import numpy as np
import pytest
from ase.data import chemical_symbols

from crysgnn_jax.crystals.readers import kept, open_source
from crysgnn_jax.errors import UserError
from toys import caesium_chloride, collection


def crystals_of(source):
    return [source.decode(item) for item in source.items(0, len(source))]


def files_in(folder):
    """What is kept, but for locks."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


# JARVIS


def jarvis_records(n=3):
    return [
        {
            "jid": f"JVASP-{k}",
            "atoms": {
                "lattice_mat": crystal.lattice.tolist(),
                "coords": crystal.frac_coords.tolist(),
                "elements": [chemical_symbols[z] for z in crystal.species],
                "cartesian": False,
            },
            "optb88vdw_bandgap": 0.5 * k,
        }
        for k, crystal in enumerate(collection(n))
    ]


class Quiet(http.server.SimpleHTTPRequestHandler):
    asked = 0

    def do_GET(self):
        Quiet.asked += 1
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def figshare(tmp_path, monkeypatch):
    """The package's downloader, whose list of data sets leads to a folder of the test's."""
    module = pytest.importorskip("jarvis.db.figshare", reason="jarvis-tools is not installed")
    folder = tmp_path / "site"
    folder.mkdir()
    Quiet.asked = 0
    handler = functools.partial(Quiet, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/dft_3d.zip"
    known = {"dft_3d": [url, "jdft_3d-1-1-2026.json", "3D", "a paper"], "dft_2d": ["", "", "", ""]}
    monkeypatch.setattr(module, "get_db_info", lambda: known)
    yield folder / "dft_3d.zip"
    server.shutdown()
    server.server_close()


def write_zip(path, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("jdft_3d-1-1-2026.json", content)


def test_a_data_set_of_jarvis_is_downloaded_once(figshare, capsys):
    write_zip(figshare, json.dumps(jarvis_records()))
    for _ in range(2):
        source = open_source("jarvis:dft_3d")
        assert source.name == "jarvis:dft_3d"
        assert source.ids().tolist() == ["JVASP-0", "JVASP-1", "JVASP-2"]
        gaps = [crystal.labels for crystal in crystals_of(source)]
        assert gaps == [{"optb88vdw_bandgap": 0.5 * k} for k in range(3)]
    assert Quiet.asked == 1
    assert capsys.readouterr().out == ""  # it belongs to the command


@pytest.mark.parametrize("damage", ["cut", "changed", "page", "json", "nothing"])
def test_a_damaged_download_is_told_and_not_kept(figshare, cache, damage):
    good = json.dumps(jarvis_records())
    write_zip(figshare, good[:-20] if damage == "json" else good)
    content = figshare.read_bytes()
    if damage == "cut":
        figshare.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        figshare.write_bytes(content[:200] + b"\0\0\0\0" + content[204:])
    elif damage == "page":
        figshare.write_bytes(b"<html>come back later</html>")
    elif damage == "nothing":
        figshare.unlink()
    with pytest.raises(UserError, match="jarvis:dft_3d: .*run the command again") as error:
        open_source("jarvis:dft_3d")
    assert "\n" not in str(error.value)
    assert files_in(cache) == []
    write_zip(figshare, good)
    assert len(open_source("jarvis:dft_3d")) == 3


def test_a_server_that_is_not_there_and_a_name_that_is_none(figshare, monkeypatch):
    import jarvis.db.figshare

    with pytest.raises(UserError, match="no such data set; near it: dft_3d, dft_2d"):
        open_source("jarvis:dft_3")
    monkeypatch.setattr(
        jarvis.db.figshare, "get_db_info", lambda: {"dft_3d": ["http://127.0.0.1:9", "x.json"]}
    )
    with pytest.raises(UserError, match=r"cannot be downloaded from http://127.0.0.1:9 \("):
        open_source("jarvis:dft_3d")


@pytest.mark.parametrize(
    "name, extra", [("jarvis:dft_3d", "jarvis"), ("mp:", "mp"), ("optimade:http://x", "optimade")]
)
def test_what_is_missing_is_named(monkeypatch, name, extra):
    monkeypatch.setattr("importlib.util.find_spec", lambda module: None)
    with pytest.raises(UserError, match=rf"{name} needs .*'crysgnn-jax\[{extra}\]'"):
        open_source(name)


# Materials Project


def material_documents(page, size, n):
    """One page of ``n`` materials."""
    crystal = caesium_chloride()
    structure = {
        "lattice": {"matrix": crystal.lattice.tolist(), "pbc": [True, True, True]},
        "sites": [
            {"species": [{"element": chemical_symbols[z], "occu": 1}], "abc": abc.tolist()}
            for z, abc in zip(crystal.species, crystal.frac_coords)
        ],
    }
    return [
        {
            "material_id": f"mp-{k}",
            "structure": structure,
            "band_gap": 5.0,
            "formation_energy_per_atom": None,
            "bulk_modulus": {"vrh": float(k), "voigt": 2.0, "reuss": 1.0},
        }
        for k in range((page - 1) * size, min(page * size, n))
    ]


class Materials:
    """Stands for ``mp_api.client.MPRester``, with its pages."""

    calls: list = []
    fails_at = None
    n = 2300

    def __init__(self, api_key, **settings):
        assert settings["use_document_model"] is False
        self.key, self.db_version = api_key, "2026.04.13"
        self.materials = types.SimpleNamespace(summary=self)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def search(self, *, fields, num_chunks, chunk_size, _page, _sort_fields, **criteria):
        assert num_chunks == 1 and {"material_id", "structure"} <= {*fields}
        Materials.calls.append((_page, criteria))
        if Materials.fails_at == _page:
            raise RuntimeError(f"401 Unauthorized\nx-api-key: {self.key}")
        return material_documents(_page, chunk_size, self.n)


@pytest.fixture
def materials(monkeypatch):
    Materials.calls, Materials.fails_at = [], None
    package, client = types.ModuleType("mp_api"), types.ModuleType("mp_api.client")
    client.MPRester = Materials
    monkeypatch.setitem(sys.modules, "mp_api", package)
    monkeypatch.setitem(sys.modules, "mp_api.client", client)
    package.__spec__ = types.SimpleNamespace()
    monkeypatch.setenv("MP_API_KEY", "secret-key")
    return Materials


def test_the_materials_project_is_asked_page_by_page_and_once(materials):
    source = open_source("mp:elements=Cs,Cl&exclude_elements=H")
    assert len(source) == 2300 and source.label_names == ["band_gap", "bulk_modulus_vrh"]
    crystal = source.decode(source.items(2299, 2300)[0])
    assert crystal.id == "mp-2299" and crystal.reduced_formula == "Cl1Cs1"
    assert crystal.labels == {"band_gap": 5.0, "bulk_modulus_vrh": 2299.0}
    asked = {"elements": ["Cs", "Cl"], "exclude_elements": ["H"], "deprecated": False}
    assert materials.calls == [(page, asked) for page in (1, 2, 3, 4)]
    open_source("mp:exclude_elements=H&elements=Cs,Cl")
    assert len(materials.calls) == 4


def test_an_interrupted_download_goes_on(materials):
    materials.fails_at = 3
    with pytest.raises(UserError, match="it goes on where it stopped") as error:
        open_source("mp:")
    assert "secret" not in str(error.value) and "\n" not in str(error.value)
    materials.fails_at, materials.calls = None, []
    source = open_source("mp:")
    assert source.ids().tolist() == [f"mp-{k}" for k in range(2300)]
    assert [page for page, _ in materials.calls] == [3, 4]


def test_the_key_is_nowhere(materials, cache, capfd):
    source = open_source("mp:")
    said = "".join([*capfd.readouterr(), source.name, source.fingerprint(), *source.notes])
    texts = [path.read_text() for path in cache.iterdir()]
    assert all("secret" not in text for text in [said, *texts, *os.listdir(cache)])


def test_what_the_materials_project_needs(materials, monkeypatch):
    with pytest.raises(UserError, match="'colour=red' is no criterion; give elements"):
        open_source("mp:colour=red")
    monkeypatch.setattr(materials, "n", 0)
    with pytest.raises(UserError, match="no crystal fits"):
        open_source("mp:")
    monkeypatch.delenv("MP_API_KEY")
    with pytest.raises(UserError, match="asks for a key; .* export MP_API_KEY=…"):
        open_source("mp:")


class Summary(http.server.BaseHTTPRequestHandler):
    """Answers as the Materials Project does."""

    def do_GET(self):
        address = urllib.parse.urlparse(self.path)
        asked = dict(urllib.parse.parse_qsl(address.query))
        if "heartbeat" in address.path:
            found = {"version": "0.86.0", "db_version": "x", "access_controlled_batch_ids": []}
        else:
            assert asked["elements"] == "Cs,Cl" and self.headers["x-api-key"] == 32 * "k"
            documents = material_documents(int(asked["_page"]), int(asked["_per_page"]), 1200)
            found = {"data": documents, "meta": {"total_doc": 1200}}
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    def log_message(self, *_):
        pass


@pytest.mark.filterwarnings("ignore")
def test_the_client_of_the_materials_project_is_used_as_it_is(monkeypatch):
    utils = pytest.importorskip("mp_api.client.core.utils", reason="mp-api is not installed")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Summary)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    monkeypatch.setattr(utils.MAPI_CLIENT_SETTINGS, "ENDPOINT", address)
    monkeypatch.setenv("MP_API_KEY", 32 * "k")
    try:
        source = open_source("mp:elements=Cs,Cl")
    finally:
        server.shutdown()
        server.server_close()
    assert source.ids().tolist() == [f"mp-{k}" for k in range(1200)]
    assert source.decode(source.items(7, 8)[0]).labels["bulk_modulus_vrh"] == 7.0


# OPTIMADE


def optimade_entry(number):
    """A rocksalt, of which every seventh has a partly occupied site."""
    a = 5.0 + 0.01 * number
    share = 0.5 if number % 7 == 6 else 1.0
    attributes = {
        "lattice_vectors": [[0, a / 2, a / 2], [a / 2, 0, a / 2], [a / 2, a / 2, 0]],
        "cartesian_site_positions": [[0, 0, 0], [a / 2, a / 2, a / 2]],
        "species_at_sites": ["Na", "Cl"],
        "species": [
            {"name": "Na", "chemical_symbols": ["Na"], "concentration": [1.0]},
            {"name": "Cl", "chemical_symbols": ["Cl", "Br"], "concentration": [share, 1 - share]}
            if share < 1
            else {"name": "Cl", "chemical_symbols": ["Cl"], "concentration": [1.0]},
        ],
        **{"nsites": 2, "nelements": 2 if number < 40 else 3, "elements": ["Cl", "Na"]},
        **{"elements_ratios": [0.5, 0.5], "dimension_types": [1, 1, 1], "structure_features": []},
        **{"nperiodic_dimensions": 3, "chemical_formula_reduced": "ClNa"},
        **{"last_modified": {"$date": "2026-01-01T00:00:00Z"}, "band_gap": float(number)},
    }
    return {"id": f"toy-{number}", "type": "structures", "attributes": attributes}


@pytest.fixture(scope="module")
def optimade_server(tmp_path_factory):
    """The reference server of ``optimade-python-tools`` with 45 structures, and what ends it."""
    reason = "optimade's server and client are not installed"
    for module in ("optimade.server.main", "optimade.client", "uvicorn"):
        if not _is_there(module):
            pytest.skip(reason)
    folder = tmp_path_factory.mktemp("optimade")
    lines = [{"x-optimade": {"meta": {"api_version": "1.2.0"}}}, *map(optimade_entry, range(45))]
    (folder / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.json").write_text("{}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gap = {"name": "band_gap", "type": "float", "unit": "eV", "description": "the gap"}
    settings = {
        "CONFIG_FILE": folder / "config.json",
        "DATABASE_BACKEND": "mongomock",
        "INSERT_TEST_DATA": "false",
        "INSERT_FROM_JSONL": folder / "data.jsonl",
        "PROVIDER_FIELDS": json.dumps({"structures": [gap]}),
        "PAGE_LIMIT_MAX": "20",
        "LOG_DIR": folder,
    }
    environment = os.environ | {f"OPTIMADE_{name}": str(x) for name, x in settings.items()}
    command = [sys.executable, "-m", "uvicorn", "optimade.server.main:app", "--port", str(port)]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/v1/info"):
                break
            assert server.poll() is None, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait()


def _is_there(module):
    with contextlib.suppress(ImportError):
        return __import__(module, fromlist=["x"]) is not None
    return False


def test_an_optimade_database_is_read_over_its_pages(optimade_server, cache):
    source = open_source(f"optimade:{optimade_server}")
    assert sorted(source.ids()) == sorted(f"toy-{k}" for k in range(45))
    assert source.label_names == ["_exmpl_band_gap"]
    found, reasons = {}, []
    for item in source.items(0, 45):
        try:
            crystal = source.decode(item)
            found[crystal.id] = crystal
        except Exception as error:
            reasons.append(str(error))
    assert len(found) == 39 and all("partially occupied" in reason for reason in reasons)
    assert found["toy-3"].labels == {"_exmpl_band_gap": 3.0}
    np.testing.assert_allclose(found["toy-3"].lattice[0], [0, 2.515, 2.515])
    assert [name.split("-")[0] for name in files_in(cache)] == ["optimade"]


def test_a_filter_and_the_end_of_an_address(optimade_server):
    address = f"optimade:{optimade_server}/v1/structures?filter=nelements=3%20AND elements HAS"
    source = open_source(f'{address} "Na"')
    assert sorted(source.ids()) == [f"toy-{k}" for k in range(40, 45)]
    with pytest.raises(UserError, match="no structure fits; mend the filter"):
        open_source(f"optimade:{optimade_server}?filter=nelements=9")
    with pytest.raises(UserError, match="cannot be downloaded .*Unable to parse filter") as error:
        open_source(f"optimade:{optimade_server}?filter=nelements=")
    assert "\n" not in str(error.value)


def test_an_interrupted_optimade_download_goes_on(optimade_server, cache, monkeypatch):
    add = kept.Paged.add

    def at_the_third_page(self, records, next):
        if self.n >= 40:
            raise ConnectionError("the line is dead")
        add(self, records, next)

    monkeypatch.setattr(kept.Paged, "add", at_the_third_page)
    with pytest.raises(UserError, match="the line is dead.* it goes on where it stopped"):
        open_source(f"optimade:{optimade_server}")
    assert [name.rpartition(".part.")[2] for name in files_in(cache)] == ["pages", "pages.json"]
    sizes = []

    def counted(self, records, next):
        sizes.append(len(records))
        add(self, records, next)

    monkeypatch.setattr(kept.Paged, "add", counted)
    source = open_source(f"optimade:{optimade_server}")
    assert sizes == [5] and sorted(source.ids()) == sorted(f"toy-{k}" for k in range(45))
    assert len(files_in(cache)) == 1


@pytest.mark.parametrize(
    "address, reason",
    [
        ("oqmd.org", "give the base address of a database"),
        ("http://x?page=2", "after [?] comes filter=…"),
        ("http://127.0.0.1:9", "cannot be downloaded"),
    ],
)
def test_addresses_that_lead_nowhere(address, reason):
    pytest.importorskip("optimade", reason="optimade is not installed")
    with pytest.raises(UserError, match=reason):
        open_source(f"optimade:{address}")
