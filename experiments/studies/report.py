"""Write the tables of gains in `README.md` and `results/README.md`, and the figure.

All of it comes from the records in ``results/``:

python -m experiments.studies.report

A table lies between the comment ``<!-- table: NAME, … -->`` and ``<!-- end of the table -->``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import crysgnn_jax as cg
from crysgnn_jax.training.settings import TEACHER
from crysgnn_jax.training.shipped import FOLDER
from crysgnn_jax.training.workdir import RESULT, read_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"
END = "<!-- end of the table -->"

TITLES = {
    "formation_energy_per_atom": "formation energy, eV/atom",
    "formation_energy_peratom": "formation energy, eV/atom",
    "band_gap": "band gap, eV",
    "optb88vdw_bandgap": "band gap (OptB88vdW), eV",
    "mbj_bandgap": "band gap (MBJ), eV",
    "optb88vdw_total_energy": "total energy, eV/atom",
    "ehull": "energy above the hull, eV/atom",
    "bulk_modulus_kv": "bulk modulus, GPa",
    "shear_modulus_gv": "shear modulus, GPa",
    "spillage": "spillage",
    "log10_bulk_modulus": "log₁₀ bulk modulus, GPa",
    "log10_shear_modulus": "log₁₀ shear modulus, GPa",
}
SHOWN = {"cgcnn": "CGCNN", "crysxpp": "CrysXPP", "gatgnn": "GATGNN", "alignn": "small ALIGNN"}
PUBLISHED = {"cgcnn": 16, "crysxpp": 12, "gatgnn": 8, "alignn": 4}
"""Mean gain of a student over the paper's properties, % (Das et al. 2023)."""

TWINS = ("vanilla", "distilled")
SOURCES = {"mp": "Materials Project", "jarvis_1k": "JARVIS-DFT"}


def parts(name: str) -> tuple[str, str, str]:
    """Student, source and property of a cell, from its name."""
    student, source, property = name.split()[:3]
    return student, SOURCES[source], TITLES[property]


def of_earlier_start(name: str, cell: dict[str, Any]) -> bool:
    """Whether its distilled students began with another start than the one that the package has.

    Where the package has none, by another teacher.
    """
    path = FOLDER / f"{TEACHER}-{parts(name)[0]}" / RESULT
    if not path.exists():
        return cell["teacher"] != cg.load(TEACHER).fingerprint
    if cell["start"]["from"] != path.parent.name:
        return True
    return cell["start"]["validation_loss"] != read_json(path)["validation_loss"]


def interval(low: float, high: float) -> str:
    """``low … high``, with a minus sign that is as wide as a digit."""
    return f"{low:.1f} … {high:.1f}".replace("-", "−")


def in_words(name: str, cell: dict[str, Any], error: str, spread: str) -> tuple[str, str, str, str]:
    """Mark of a row, its errors, gain, and interval; † where it is of an earlier start.

    Args:
      name: of the cell.
      cell: its part of the record.
      error: format of the mean errors.
      spread: format of their standard deviations.
    """
    errors = [f"{np.mean(cell[x]):{error}} ± {np.std(cell[x], ddof=1):{spread}}" for x in TWINS]
    gain = f"{cell['gain']:.1f}".replace("-", "−")
    mark = "†" if of_earlier_start(name, cell) else ""
    return mark, " | ".join(errors), gain, interval(*cell["gain_interval"])


def every_cell(cells: dict[str, Any]) -> str:
    """Markdown, a row a cell; those of an earlier start are marked by †."""
    lines = [
        "| student | data | property | labels | vanilla | distilled | gain, % | 95 % interval |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, cell in cells.items():
        student, source, property = parts(name)
        mark, errors, gain, ends = in_words(name, cell, ".4g", ".2g")
        lines.append(
            f"| {SHOWN[student]}{mark} | {source} | {property} | {cell['n_train']} | {errors} | "
            f"{gain} | {ends} |"
        )
    return "\n".join(lines)


def by_student(cells: dict[str, Any]) -> str:
    """Markdown, a row a student: how many of its cells gain, and how much on average."""
    lines = [
        "| student | cells | that gain | beyond doubt | that lose, beyond doubt | mean gain, % | "
        "in the paper, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for student, published in PUBLISHED.items():
        found = [cell for name, cell in cells.items() if parts(name)[0] == student]
        if not found:
            continue
        gains = np.array([cell["gain"] for cell in found])
        lows, highs = np.array([cell["gain_interval"] for cell in found]).T
        lines.append(
            f"| {SHOWN[student]} | {len(found)} | {np.sum(gains > 0)} | {np.sum(lows > 0)} | "
            f"{np.sum(highs < 0)} | {gains.mean():.1f} | {published} |".replace("-", "−")
        )
    return "\n".join(lines)


def materials_project(cells: dict[str, Any]) -> str:
    """Markdown, a row a cell of the Materials Project, for the front page."""
    lines = [
        "| test MAE | | labels | vanilla | distilled | gain (95 % interval) |",
        "|---|---|---|---|---|---|",
    ]
    for name, cell in cells.items():
        student, source, property = parts(name)
        if source != SOURCES["mp"]:
            continue
        digits = ".4f" if np.mean(cell["vanilla"]) < 0.2 else ".3f"
        mark, errors, gain, ends = in_words(name, cell, digits, digits)
        lines.append(
            f"| {SHOWN[student]}{mark} | {property} | {cell['n_train']:,} | {errors} | "
            f"{gain} % ({ends}) |"
        )
    return "\n".join(lines)


def first_command() -> str:
    """Markdown: what the first command of the README prints, over the seeds that there are."""
    paths = sorted(RESULTS.glob("formation_energy_cgcnn_seed[0-9].json"))
    runs = [read_json(path)["runs"] for path in paths]
    before, after = (np.array([run[x]["result"]["test_mae"] for run in runs]) for x in TWINS)
    lines = ["| | test MAE (eV/atom) |", "|---|---|"]
    for name, values in zip((*TWINS, "distilled − vanilla, seed by seed"),
                            (before, after, after - before)):  # fmt: skip
        text = f"{values.mean():.4f} ± {values.std(ddof=1):.4f}".replace("-", "−")
        lines.append(f"| {name} | {text} |")
    return "\n".join(lines)


METHODS = {
    "DFT": "DFT",
    "DFT, straight line": "DFT, straight line",
    "cgcnn vanilla": "CGCNN vanilla, DFT labels alone",
    "cgcnn vanilla, adapted": "… adapted",
    "cgcnn distilled": "CGCNN distilled, DFT labels alone",
    "cgcnn distilled, adapted": "… adapted",
}


def from_dft() -> str:
    """Markdown, a row a method: errors and biases beside measured values, by the share used."""
    lines = {
        (x["method"], x["measured_share"]): x for x in read_json(RESULTS / "debias.json")["lines"]
    }
    shares = sorted({share for _, share in lines})
    head = " | ".join(f"MAE, {share:.0%} used | bias".replace("%", " %") for share in shares)
    rows = [f"| method | {head} |", "|---|" + "---|---|" * len(shares)]
    for method, shown in METHODS.items():
        values = []
        for share in shares:
            x = lines[method, share]
            values.append(f"{x['mae']:.3f} ± {x['mae_deviation']:.3f}")
            bias = round(x["bias"], 3) + 0.0  # no "-0.000"
            values.append(f"{bias:+.3f} ± {x['bias_deviation']:.3f}")
        rows.append(f"| {shown} | {' | '.join(values)} |".replace("-", "−"))
    return "\n".join(rows)


def tables() -> Iterator[tuple[Path, str, str]]:
    """Text, name of a table in it, and the table as the records have it."""
    cells = read_json(RESULTS / "gain.json")["cells"]
    yield RESULTS / "README.md", "every cell", every_cell(cells)
    yield RESULTS / "README.md", "by student", by_student(cells)
    for page in (RESULTS / "README.md", ROOT / "docs" / "commands" / "debias.md"):
        yield page, "from DFT to measurement", from_dft()
    yield ROOT / "README.md", "the first command", first_command()
    yield ROOT / "README.md", "Materials Project", materials_project(cells)


def with_table(text: str, name: str, table: str) -> str:
    """A text with a table where its comment is.

    Raises:
      ValueError: the comment is not there, or twice.
    """
    begin = f"<!-- table: {name}, python -m experiments.studies.report -->"
    before, rest = text.split(begin)
    _, after = rest.split(END, 1)
    return f"{before}{begin}\n\n{table}\n\n{END}{after}"


def draw(cells: dict[str, Any], path: Path) -> None:
    """The gain of each cell, with its interval; those of an earlier start are marked by †."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(cells)[::-1]
    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.32 * len(names)), layout="constrained")
    gains = np.array([cells[name]["gain"] for name in names])
    ends = np.array([cells[name]["gain_interval"] for name in names]).T
    axes.axvline(0, color="black", linewidth=0.8)
    axes.errorbar(gains, range(len(names)), xerr=np.abs(ends - gains), fmt="o", capsize=3)
    labels = []
    for name in names:
        student, source, property = parts(name)
        n = cells[name]["n_train"]
        mark = "†" if of_earlier_start(name, cells[name]) else ""
        labels.append(f"{SHOWN[student]}{mark}: {property.split(', ')[0]}, {n} labels of {source}")
    axes.set_yticks(range(len(names)), labels)
    axes.set_xlabel("gain, % of the vanilla MAE")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    for path, name, table in tables():
        path.write_text(with_table(path.read_text(), name, table))
    draw(read_json(RESULTS / "gain.json")["cells"], RESULTS / "gain.png")


if __name__ == "__main__":
    main()
