"""Make the weights that the example of ``convert`` is run on: a CGCNN's, at random.

python scripts/example_weights.py docs/examples/weights/cgcnn.npz

A small network of the authors' code, under the names of its state dict, as
``np.savez(path, **{name: tensor.numpy() for name, tensor in model.state_dict().items()})`` would
write it. It has learned nothing.
"""

import argparse
from pathlib import Path

import numpy as np

N_FEATURES, N_BASIS = 92, 41
"""Of an element in the authors' table; centres from 0 to 8 Å, 0.2 Å apart."""


def state_dict(width: int, n_convolutions: int, head_width: int) -> dict[str, np.ndarray]:
    """Arrays by the names of the authors' modules, float32.

    Args:
      width: of an atom's vector.
      n_convolutions: number of convolutions.
      head_width: of the layer between crystal and property.
    """
    generator = np.random.default_rng(0)
    out: dict[str, np.ndarray] = {}

    def linear(name: str, n_in: int, n_out: int) -> None:
        # As PyTorch draws them.
        bound = 1 / np.sqrt(n_in)
        out[f"{name}.weight"] = generator.uniform(-bound, bound, (n_out, n_in))
        out[f"{name}.bias"] = generator.uniform(-bound, bound, n_out)

    def norm(name: str, n: int) -> None:
        out[f"{name}.weight"], out[f"{name}.bias"] = np.ones(n), np.zeros(n)
        out[f"{name}.running_mean"], out[f"{name}.running_var"] = np.zeros(n), np.ones(n)

    linear("embedding", N_FEATURES, width)
    for layer in range(n_convolutions):
        linear(f"convs.{layer}.fc_full", 2 * width + N_BASIS, 2 * width)
        norm(f"convs.{layer}.bn1", 2 * width)
        norm(f"convs.{layer}.bn2", width)
    linear("conv_to_fc", width, head_width)
    linear("fc_out", head_width, 1)
    return {name: array.astype(np.float32) for name, array in out.items()}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    path = parser.parse_args().path
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **state_dict(width=16, n_convolutions=3, head_width=32))


if __name__ == "__main__":
    main()
