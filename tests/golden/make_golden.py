"""Writes the files beside it: ``python tests/golden/make_golden.py``, where ``../shared`` is.

All but one are the original implementations' numbers cut down. CrysAE's are of `CrysAE` below,
plain NumPy, since its stored parameters are published weights, which are no part of the project.
"""

import math
import re
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import golden_files  # noqa: E402

REFERENCE = golden_files.SHARED / "reference"

COMMON = {
    "eight_crystals": ("cgcnn", "crystals/(numbers|n_atoms|frac_coords|lattice)"),
    "neighbours": ("cgcnn", "graph/(nbr_idx|distance|atom_features)"),
    "bonds": ("alignn_small", "graph/(src|dst|r|n_edges|lg_src|lg_dst|bond_cosine)"),
}
"""Small file → (the large file that it is from, its arrays): what several files share."""

STEP = "train/(loss.*|grad.*|stats_after/.*)"
PROPERTY = rf"params/.*|train/target.*|{STEP}|(eval|train)/(conv3|prediction_normed)"
FILES = {
    "cgcnn": (102, PROPERTY),
    "cgcnn_distilled": (103, rf"params/.*|train/target.*|{STEP}"),
    "crysgnn": (
        104,
        rf"params/.*|train/target_(space_group|crystal_system)|{STEP}"
        "|(eval|train)/(atom_emb_l2|graph_vector|atom_feature_logits|space_group_log_prob"
        "|edge_log_prob)|eval/conv3",
    ),
    "crysxpp": (105, f"{PROPERTY}|train/mean_abs_mask"),
    "gatgnn": (
        106,
        "params/.*|graph/composition|train/target|(eval|train)/(agat3_bn|prediction)"
        "|train(64)?/(loss|grad/.*|stats_after/.*)",
    ),
    "alignn_small": (
        111,
        rf"params/.*|train/target|{STEP}|train/prediction"
        r"|eval/(atom_embedding|alignn\d_x|gcn\d_x|prediction)",
    ),
    "alignn": (None, "none"),
    "alignn_lowdensity_graph": (
        None,
        "crystals/(numbers|n_atoms|frac_coords|lattice)|graph/(src|dst|r|n_edges)",
    ),
    "ntxent_cases": (None, r"case\d/(embeddings|labels|loss64|grad64)"),
}
"""File → (the seed of its parameters, the arrays that tests read)."""

N_KEPT = 512
"""How many numbers, about, are kept of a large gradient; of ALIGNN's many small ones 96, and of an
output four times as many."""

WHOLE = ("eval/atom_emb_l2", "agat3_bn")
"""Outputs of which all is kept, since tests compute with them."""


def load(name):
    with np.load(REFERENCE / f"{name}.npz") as file:
        return dict(file)


def chosen(arrays, pattern):
    return {
        name: array
        for name, array in arrays.items()
        if re.fullmatch(pattern, name) and not name.endswith("num_batches_tracked")
    }


def drawn(arrays, seed):
    """Name → (start, bound) of the parameters that PyTorch drew from its generator: found by
    looking for each array's first number, and equal in every bit."""
    stream = golden_files.stream(seed)
    parameters = {k: v for k, v in arrays.items() if k.startswith("params/") and v.size >= 16}
    fans = {size for array in parameters.values() for size in array.shape}
    # Initialisation as usual, enlarged for some; or the uniform one of Glorot.
    bounds = {m / math.sqrt(fan) for m in (1, 2, 2.5, 3, 6, 8, 10, 12) for fan in fans} | {0.125}
    found = {}
    for name, array in parameters.items():
        largest = np.abs(array).max()
        for bound in (b for b in bounds if largest <= b * (1 + 1e-6) < 1.5 * largest):
            first = (float(array.flat[0]) / bound + 1) * 2**23
            for start in np.flatnonzero(np.abs(stream - first) < 20):
                numbers = stream[start : start + array.size]
                if np.array_equal(golden_files.draw(numbers, bound), array.ravel()):
                    found[name] = int(start), bound
    return found


def kept(arrays, n_kept):
    """Name → (start, step) for large gradients and outputs: numbers of all rows and columns, and
    among them the largest."""
    found = {}
    for name, array in arrays.items():
        kind = re.match("train(64)?/grad|eval/|train/(?!stats)", name)
        number = n_kept if "grad" in name else 4 * N_KEPT
        if kind and not name.endswith(WHOLE) and array.size > 1.5 * number:
            step = array.size // number
            while math.gcd(step, array.shape[-1]) > 1:
                step += 1
            found[name] = int(np.abs(array).argmax() % step), step
    return found


def also(arrays, name):
    """The shared files whose arrays a file has, all of them."""
    found = []
    for other, (source, pattern) in COMMON.items():
        shared = chosen(load(source), pattern)
        if all(np.array_equal(arrays.get(key), array) for key, array in shared.items()):
            found.append(other)
    return found


def cut_down(name):
    """One small file of the original's numbers."""
    arrays = load(name)
    seed, pattern = FILES[name]
    arrays, common = chosen(arrays, pattern), also(arrays, name)
    golden_files.write(
        HERE / f"{name}.npz",
        arrays,
        also=common,
        seed=seed,
        drawn=drawn(arrays, seed) if seed else None,
        kept=kept(arrays, 96 if name == "alignn_small" else N_KEPT),
    )


def softplus(x):
    return np.logaddexp(0, x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def log_softmax(x):
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


class CrysAE:
    """The crystal auto-encoder and its loss in NumPy, float64, after the formulas of its authors.

    Args:
      arrays: a batch: ``crystals/n_atoms``, ``graph/nbr_idx``, ``graph/distance`` and
        ``graph/atom_features``.
    """

    def __init__(self, arrays):
        self.n_atoms = arrays["crystals/n_atoms"]
        self.neighbours = arrays["graph/nbr_idx"].astype(int)
        self.features = arrays["graph/atom_features"].astype(float)
        centres = np.linspace(0, 8, 41)
        self.basis = np.exp(-(((arrays["graph/distance"][..., None] - centres) / 0.2) ** 2))
        # All ordered pairs of atoms of a crystal, crystal by crystal.
        ends = np.cumsum(self.n_atoms)
        atoms = [np.arange(end - n, end) for n, end in zip(self.n_atoms, ends)]
        self.first = np.concatenate([np.repeat(x, len(x)) for x in atoms])
        self.second = np.concatenate([np.tile(x, len(x)) for x in atoms])
        neighbours_of = self.neighbours[self.first]
        self.target = np.minimum((neighbours_of == self.second[:, None]).sum(axis=1), 5)
        self.atom_crystal = np.repeat(np.arange(len(atoms)), self.n_atoms)
        self.pair_crystal = self.atom_crystal[self.first]

    def _norm(self, p, name, x, train, after):
        """Batch norm over the rows; ``after`` receives the running statistics after the step."""
        old = {k: p[f"{name}.running_{k}"] for k in ("mean", "var")}
        mean, variance = (x.mean(axis=0), x.var(axis=0)) if train else old.values()
        if train:
            unbiased = variance * len(x) / (len(x) - 1)
            after[f"{name}.running_mean"] = 0.9 * old["mean"] + 0.1 * mean
            after[f"{name}.running_var"] = 0.9 * old["var"] + 0.1 * unbiased
        return (x - mean) / np.sqrt(variance + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

    def _convolution(self, p, name, atoms, train, after):
        width = atoms.shape[1]
        own = np.broadcast_to(atoms[:, None], (*self.neighbours.shape, width))
        z = np.concatenate([own, atoms[self.neighbours], self.basis], axis=2)
        z = z.reshape(-1, z.shape[2]) @ p[f"{name}.fc_full.weight"].T + p[f"{name}.fc_full.bias"]
        z = self._norm(p, f"{name}.bn1", z, train, after)
        messages = sigmoid(z[:, :width]) * softplus(z[:, width:])
        total = messages.reshape(len(atoms), -1, width).sum(axis=1)
        return softplus(atoms + self._norm(p, f"{name}.bn2", total, train, after))

    def __call__(self, p, train):
        """Outputs, and the running statistics after the step, of parameters by torch name."""
        after = {}
        atoms = self.features @ p["embedding.weight"].T
        n_convolutions = len({name.split(".")[1] for name in p if name.startswith("convs.")})
        for k in range(n_convolutions):
            atoms = self._convolution(p, f"convs.{k}", atoms, train, after)
        w = p["fc_adj.weight"]
        pairs = np.stack([((atoms @ x)[self.first] * atoms[self.second]).sum(axis=1) for x in w], 1)
        pairs = (pairs + p["fc_adj.bias"]) @ p["fc1.weight"].T + p["fc1.bias"]
        outputs = {
            "conv3": atoms,
            "edge_log_prob": log_softmax(pairs),
            "atom_feature_logits": atoms @ p["fc_atom_feature.weight"].T
            + p["fc_atom_feature.bias"],
        }
        return outputs, after

    def losses(self, outputs):
        """``loss``, and the two parts that it is made of: means over the crystals."""
        weights = np.where(self.target == 0, 0.1, 1.0)
        terms = -outputs["edge_log_prob"][np.arange(len(self.target)), self.target]
        per_crystal = lambda x: np.bincount(self.pair_crystal, x)
        connection = (per_crystal(weights * terms) / per_crystal(weights)).mean()
        x = outputs["atom_feature_logits"]
        entropies = (softplus(x) - x * self.features).mean(axis=1)
        feature = (np.bincount(self.atom_crystal, entropies) / self.n_atoms).mean()
        return {
            "loss": 0.9 * connection + 0.1 * feature,
            "loss_connection": connection,
            "loss_atom_feature": feature,
        }

    def slopes(self, p, directions, step=1e-5):
        """Of the training loss along each of the directions, by central differences."""

        def loss(direction, sign):
            moved = {k: v + sign * step * direction.get(k, 0) for k, v in p.items()}
            return self.losses(self(moved, True)[0])["loss"]

        return np.array([(loss(d, 1) - loss(d, -1)) / (2 * step) for d in directions])


def crysae_parameters(arrays):
    """Those of `CrysAE`: the golden teacher's first three convolutions and two of its heads."""
    pattern = r"params/(embedding|convs\.[012]|fc_adj|fc1|fc_atom_feature)\..*"
    return {k[len("params/") :]: v for k, v in chosen(arrays, pattern).items()}


def double(parameters):
    return {k: v.astype(float) for k, v in parameters.items()}


def directions(parameters):
    """Two random ones for each array, all else unmoved, and two for all arrays at once."""
    generator = np.random.RandomState(0)
    found = []
    for _ in range(2):
        whole = {
            name: generator.uniform(-1, 1, array.shape)
            for name, array in parameters.items()
            if "running" not in name
        }
        found += [{name: array} for name, array in whole.items()] + [whole]
    return found


def crysae_numbers(arrays, parameters):
    """What `CrysAE` makes of a batch in either mode, under names as in the large files."""
    model, parameters, found = CrysAE(arrays), double(parameters), {}
    for mode in ("eval", "train"):
        outputs, after = model(parameters, mode == "train")
        for names in (outputs, model.losses(outputs)):
            found |= {f"{mode}/{k}": v for k, v in names.items()}
        found |= {f"{mode}/stats_after/{k}": v for k, v in after.items()}
    return found


def write_crysae():
    arrays = load("crysgnn")
    parameters = crysae_parameters(arrays)
    found = chosen(crysae_numbers(arrays, parameters), "(?!.*edge_log_prob).*")
    slopes = CrysAE(arrays).slopes(double(parameters), directions(parameters))
    found = {k: np.float32(v) for k, v in (found | {"train/slopes": slopes}).items()}
    golden_files.write(HERE / "crysae_formulas.npz", found, kept=kept(found, N_KEPT))


def main():
    for name, (source, pattern) in COMMON.items():
        golden_files.write(HERE / f"{name}.npz", chosen(load(source), pattern))
    for name in FILES:
        cut_down(name)
    write_crysae()


if __name__ == "__main__":
    main()
