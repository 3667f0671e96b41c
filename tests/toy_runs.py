"""Running the commands on toy crystals, in this process."""

from pathlib import Path

from crysgnn_jax.commands import cli, compare, distill, pretrain
from crysgnn_jax.crystals.table import write_table
from toys import collection

COMMON = ("--workers", "1", "--devices", "1")


def run(command, path: Path, *flags, data: str | Path = "toys.npz", more=COMMON) -> None:
    """Call a command with the table and cache that lie in ``path``; without an untagged stage,
    unless the flags ask for one."""
    if command in (distill, compare):
        more = (*more, "--untagged-epochs", "0")
    cli.call(
        command,
        ["--data", str(path / data), "--cache", str(path / "cache"), *more, *map(str, flags)],
    )


def prepare(path: Path, n_crystals: int = 24, *flags) -> Path:
    """A table of toy crystals in ``path``, and a small teacher trained on it."""
    write_table(path / "toys.npz", collection(n_crystals))
    small = ("--epochs", "1", "--batch-size", "12", "--n-convolutions", "1", "--width", "16")
    run(pretrain, path, "--workdir", path / "teacher", *small, *flags)
    return path
