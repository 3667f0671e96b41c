"""Where golden numbers are, and how the small files ``tests/golden/*.npz`` are packed."""

import functools
import json
import math
import os
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent

SMALL = HERE / "golden"
"""Files that are part of the project; their makefile is beside them."""

SHARED = Path(os.environ.get("CRYSGNN_SHARED") or HERE.parents[1] / "shared")
"""Large golden files, published weights and data, which are no part of the project, and where they
are absent, some tests are skipped. ``CRYSGNN_SHARED=nowhere pytest`` is a run without them."""


class SmallFile(dict):
    """The arrays of a small file by name; asking for one that only the large file has calls
    ``on_missing(message)``."""

    def __init__(self, name, arrays, on_missing):
        super().__init__(arrays)
        self._name, self._on_missing = name, on_missing

    def __missing__(self, key):
        self.lacks(key)
        raise KeyError(key)

    def lacks(self, key):
        self._on_missing(f"needs the large golden file {self._name}.npz, for {key}")


@functools.lru_cache(maxsize=2)
def stream(seed, n=200_000):
    """The first ``n`` numbers, of 24 bits, of PyTorch's generator after ``manual_seed(seed)``.

    It is the Mersenne Twister, as NumPy's ``RandomState``, whose numbers never change.
    """
    return np.random.RandomState(seed).randint(0, 2**32, n, np.uint32) & 0xFFFFFF


def draw(numbers, bound):
    """What PyTorch's ``uniform_(-bound, bound)`` makes of numbers of the `stream`, float32.

    The product and sum there are one operation, rounded once; float64 holds them exactly.
    """
    low, high = -np.float32(bound), np.float32(bound)
    return (numbers * 2.0**-24 * float(high - low) + float(low)).astype(np.float32)


def write(path, arrays, *, also=(), seed=None, drawn=None, kept=None):
    """Pack arrays into one file.

    Args:
      path: of the file.
      arrays: name → array.
      also: names of other small files whose arrays belong to this one too.
      seed: of the `stream` of those drawn.
      drawn: name → (start in the stream, bound) of arrays that `draw` makes again.
      kept: name → (start, step) of arrays (float32) of which only every so many-th number is kept.
    """
    index, flat, crc = {}, {}, 0
    for name, array in arrays.items():
        array = np.asarray(array)
        entry = index[name] = {"shape": array.shape}
        if name in (drawn or {}):
            entry["drawn"] = drawn[name]
            crc = zlib.crc32(array.tobytes(), crc)
            continue
        if array.dtype != np.float32:
            entry["dtype"] = array.dtype.name
        array = array.ravel()
        if name in (kept or {}):
            entry["kept"] = start, step = kept[name]
            array = array[start::step]
        flat.setdefault(array.dtype.name, []).append(array)
    header = {"also": list(also), "seed": seed, "crc": crc, "arrays": index}
    text = json.dumps(header, separators=(",", ":")).encode()
    data = {dtype: np.concatenate(parts) for dtype, parts in flat.items()}
    np.savez_compressed(path, header=np.frombuffer(text, np.uint8), **data)


def read(name):
    """Name → array of a small file; where only some numbers of an array are kept, the others are
    NaN."""
    with np.load(SMALL / f"{name}.npz") as file:
        header = json.loads(file["header"].tobytes())
        flat = {dtype: file[dtype] for dtype in file.files if dtype != "header"}
    arrays, crc = {}, 0
    for other in header["also"]:
        arrays |= read(other)
    for key, entry in header["arrays"].items():
        shape = tuple(entry["shape"])
        size = math.prod(shape)
        if "drawn" in entry:
            start, bound = entry["drawn"]
            array = draw(stream(header["seed"])[start : start + size], bound)
            crc = zlib.crc32(array.tobytes(), crc)
        else:
            start, step = entry.get("kept", (0, 1))
            n, dtype = len(range(start, size, step)), entry.get("dtype", "float32")
            kept, flat[dtype] = np.split(flat[dtype], [n])
            if "kept" in entry:
                array = np.full(size, np.nan, dtype)
                array[start::step] = kept
            else:
                array = kept
        arrays[key] = array.reshape(shape)
    if crc != header["crc"]:
        raise RuntimeError(f"NumPy no longer draws the parameters that {name}.npz is about")
    return arrays
