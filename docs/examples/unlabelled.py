"""Few labels and many structures: the teacher pulls on crystals without labels, too.

    python docs/examples/unlabelled.py labelled.npz band_gap more_cifs/ --teacher runs/teacher

As a command: ``crysgnn distill --student cgcnn --data labelled.npz --unlabelled more_cifs/``.
"""

import argparse

import crysgnn_jax as cg

parser = argparse.ArgumentParser()
parser.add_argument("labelled")
parser.add_argument("property")
parser.add_argument("unlabelled", nargs="+")
parser.add_argument("--teacher", default="runs/teacher")
parser.add_argument("--workdir", default="runs/unlabelled")
parser.add_argument("--epochs", type=int, default=60)
args = parser.parse_args()

model = cg.train(
    "cgcnn",
    args.labelled,
    args.property,
    teacher=args.teacher,
    unlabelled=args.unlabelled,
    unlabelled_per_batch=64,
    epochs=args.epochs,
    workdir=args.workdir,
)
print(f"{model.result['n_unlabelled']} crystals without labels beside {model.result['n_train']}")
print(f"test MAE {model.result['test_mae']:.4g} {model.unit}")
