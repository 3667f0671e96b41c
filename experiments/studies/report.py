"""Write the table and the figure of `results/README.md` from ``results/gain.json``.

python -m experiments.studies.report
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parents[2] / "results"
BEGIN, END = "<!-- table: python -m experiments.studies.report -->", "<!-- end of the table -->"

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
SOURCES = {"mp": "Materials Project", "jarvis_1k": "JARVIS-DFT"}


def parts(name: str) -> tuple[str, str, str]:
    """Student, source and property of a cell, from its name."""
    student, source, property = name.split()[:3]
    return student, SOURCES[source], TITLES[property]


def table(cells: dict[str, Any]) -> str:
    """Markdown, a row a cell."""
    lines = [
        "| student | data | property | labels | vanilla | distilled | gain, % | 95 % interval |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, cell in cells.items():
        student, source, property = parts(name)
        errors = [
            f"{np.mean(cell[x]):.4g} ± {np.std(cell[x], ddof=1):.2g}"
            for x in ("vanilla", "distilled")
        ]
        low, high = cell["gain_interval"]
        lines.append(
            f"| {student} | {source} | {property} | {cell['n_train']} | {' | '.join(errors)} | "
            f"{cell['gain']:.1f} | {low:.1f} … {high:.1f} |".replace("| -", "| −")
        )
    return "\n".join(lines)


def draw(cells: dict[str, Any], path: Path) -> None:
    """The gain of each cell, with its interval."""
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
        labels.append(f"{student}: {property.split(', ')[0]}, {n} labels of {source}")
    axes.set_yticks(range(len(names)), labels)
    axes.set_xlabel("gain, % of the vanilla MAE")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    cells = json.loads((RESULTS / "gain.json").read_text())["cells"]
    readme = RESULTS / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    _, after = rest.split(END)
    readme.write_text(f"{before}{BEGIN}\n\n{table(cells)}\n\n{END}{after}")
    draw(cells, RESULTS / "gain.png")


if __name__ == "__main__":
    main()
