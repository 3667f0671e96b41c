"""Few labels and many structures: the student follows the teacher on all of them first.

    python docs/examples/unlabelled.py labelled.npz band_gap more_cifs/

As a command: ``crysgnn distill --student cgcnn --data labelled.npz --unlabelled more_cifs/``.
"""

import argparse

import crysgnn_jax as cg

parser = argparse.ArgumentParser()
parser.add_argument("labelled")
parser.add_argument("property")
parser.add_argument("unlabelled", nargs="+")
parser.add_argument("--teacher", default="crysgnn-mp")
parser.add_argument("--workdir", default="runs/unlabelled")
parser.add_argument("--epochs", type=int, default=60)
args = parser.parse_args()

model = cg.train(
    "cgcnn",
    args.labelled,
    args.property,
    teacher=args.teacher,
    unlabelled=args.unlabelled,
    epochs=args.epochs,
    workdir=args.workdir,
)
print(f"{model.result['start']['n_train']} crystals before {model.result['n_train']} labels")
print(f"test MAE {model.result['test_mae']:.4g} {model.unit}")
