"""The directory of a run: what it was made with, and whether it is new, interrupted or finished."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crysgnn_jax import __version__
from crysgnn_jax.cache import Lock
from crysgnn_jax.errors import UserError
from crysgnn_jax.files import of_the_disk, write_json, written

CONFIG, RESULT, METRICS, CHECKPOINTS = "config.json", "result.json", "metrics.jsonl", "checkpoints"
REFERENCE = "reference.npz"
MEMORY = "memory.npz"
LOCK = ".lock"
SKIPPED, NOTES = "skipped.csv", "notes.csv"
PREDICTIONS, WORST, REPORT = "predictions.csv", "worst.npz", "report.html"
TENSORBOARD, WANDB = "tensorboard", "wandb"

_NO_RUN_YET = {LOCK, SKIPPED, NOTES, *(name + ".tmp" for name in (CONFIG, SKIPPED, NOTES))}
"""What a run leaves that was killed, or refused, before it had written its settings."""

_OF_A_RUN = {CONFIG, RESULT, METRICS, CHECKPOINTS, *_NO_RUN_YET}
_MORE_OF_A_RUN = {
    *("splits.json", PREDICTIONS, REFERENCE, MEMORY, WORST, REPORT, TENSORBOARD, WANDB),
    *("loss.png", "loss.svg", "parity.png", "parity.svg", "error.txt"),
    *("explanation.csv", "explanation.png", "explanation.svg"),
}
"""What else a run may hold: a folder with anything else is not one, whose settings are damaged."""


_OF_A_SESSION = ("epochs", "patience", "learning_rate")
"""Settings that a run that goes on may have others of."""


class Workdir:
    """A run's directory.

    Opening one for a run leaves it in one of three states: new (emptied if ``overwrite``),
    interrupted (to be resumed) or finished (`result` is not None). It is locked until it is left:
    ``with Workdir(…) as workdir: …``.

    Args:
      path: the directory; made if need be.
      made_with: what determines the run's outcome; an existing run's must be equal.
      overwrite: delete a run that is there.
      named: what else ``config.json`` is to say, by the names of flags; it may differ.
      continued: let a finished run go on, with more epochs: it is then an interrupted one. Epochs,
        patience and learning rate may differ from before.

    Attributes:
      path: of the directory.
      continuations: of the run so far: ``after_epoch`` and ``after_step``, which it had taken,
        ``from_epoch``, the best of them, and the error then.

    Raises:
      UserError: the path cannot be a directory or holds something else, its run was made with
        other settings or what it was made with is damaged, or another process is writing to it; or
        there is no finished run to continue, or nothing to continue it for.
    """

    def __init__(
        self,
        path: Path | str,
        made_with: Mapping[str, Any],
        *,
        overwrite: bool = False,
        named: Mapping[str, Any] | None = None,
        continued: bool = False,
    ):
        self.path = Path(path)
        self.continuations: list[dict[str, Any]] = []
        if overwrite and continued:
            raise UserError("`overwrite` deletes what `continued` goes on from; leave one out")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            is_run = self._is_run(overwrite)
            strange = [e.name for e in self.path.iterdir() if e.name not in _NO_RUN_YET]
            if strange and not is_run:
                raise UserError(
                    f"`workdir` {path} holds other files ({strange[0]}) and no run; "
                    "name another directory"
                )
            self._lock = Lock(self.path / LOCK)
            is_free = self._lock.acquire(wait=False)
        except OSError as error:
            raise _unwritable(path, error) from error
        if not is_free:
            raise UserError(f"`workdir` {path} is in use by another run")
        try:
            self._claim(
                json.loads(json.dumps(made_with)),
                is_run and overwrite,
                dict(named or {}),
                continued,
            )
        except OSError as error:
            self._lock.release()
            raise _unwritable(path, error) from error
        except BaseException:
            self._lock.release()
            raise

    ours = True
    """Whether this process writes to it."""

    @property
    def state(self) -> dict[str, Any]:
        """What a process that does not write to it must know of it."""
        return {"result": self.result, "continuations": self.continuations}

    def __enter__(self) -> "Workdir":
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _is_run(self, overwrite: bool) -> bool:
        config = self.path / CONFIG
        if not config.exists():
            return False
        try:
            return "made_with" in read_json(config)
        except UserError:
            # To be deleted, it need not be read; but what is deleted has to be a run.
            names = {entry.name for entry in self.path.iterdir()}
            if overwrite and names <= _OF_A_RUN | _MORE_OF_A_RUN:
                return True
            raise

    def _claim(
        self,
        made_with: dict[str, Any],
        overwrite: bool,
        named: Mapping[str, Any],
        continued: bool,
    ) -> None:
        config = self.path / CONFIG
        if overwrite:
            self._clear()
        if not config.exists():
            if continued:
                raise UserError(f"`continued`: `workdir` {self.path} holds no run; leave it out")
            more = {"named": named} if named else {}
            write_json(config, {"made_with": made_with, **more, "environment": environment()})
            return
        theirs = read_made_with(self.path)
        self.continuations = theirs.pop("continued", [])
        if continued:
            self._continue(theirs, made_with)
        elif self.continuations:
            before = self.continuations[-1]["after_epoch"]
            raise UserError(
                f"`workdir` {self.path} holds a run that was continued after epoch {before}; give "
                "`continued` too, another `workdir`, or `overwrite`"
            )
        else:
            require_same(theirs, made_with, self.path)

    def _continue(self, theirs: dict[str, Any], made_with: dict[str, Any]) -> None:
        """Make an interrupted run of a finished one, unless it goes on already."""
        before, now = theirs["settings"], made_with["settings"]
        kept = {name: before[name] for name in _OF_A_SESSION if name in before}
        require_same(theirs, {**made_with, "settings": {**now, **kept}}, self.path)
        if theirs == made_with and self.continuations:
            return
        result = self.result
        if result is None:
            raise UserError(
                f"`continued`: the run in `workdir` {self.path} is not finished; give its command "
                "again without it first"
            )
        if now["epochs"] <= before["epochs"]:
            raise UserError(
                f"`continued`: the run in `workdir` {self.path} was given {before['epochs']} "
                "epochs; give more, with `epochs`"
            )
        errors = ("test_mae", "validation_mae", "validation_loss")
        self.continuations.append(
            {
                "after_epoch": result["epochs"],
                "after_step": result["steps"],
                "from_epoch": result["best_epoch"],
                **{name: result[name] for name in errors if name in result},
            }
        )
        config = read_json(self.path / CONFIG)
        config["made_with"] = {**made_with, "continued": self.continuations}
        # The result first: what is left where this is cut short is the run as it was, unfinished.
        (self.path / RESULT).unlink()
        write_json(self.path / CONFIG, config)

    def _clear(self) -> None:
        # The result first and the settings last: cut short, it is an interrupted run throughout.
        (self.path / RESULT).unlink(missing_ok=True)
        for entry in self.path.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name not in (LOCK, CONFIG):
                entry.unlink()
        (self.path / CONFIG).unlink()

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def result(self) -> dict[str, Any] | None:
        """The result of a finished run."""
        path = self.path / RESULT
        return read_json(path) if path.exists() else None

    def write_splits(self, ids: Mapping[str, Any]) -> None:
        """Write ``splits.json``: split → ids."""
        write_json(self.path / "splits.json", ids)

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json``, the last thing a run writes."""
        write_json(self.path / RESULT, result)


class Followed(Workdir):
    """A run's directory that another process writes to: this one writes nothing.

    Args:
      path: of the directory.
      told: what `Workdir.state` is there.
    """

    ours = False

    def __init__(self, path: Path | str, told: Mapping[str, Any]):
        self.path = Path(path)
        self.continuations = told["continuations"]
        self._result = told["result"]

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def result(self) -> dict[str, Any] | None:
        return self._result

    def write_splits(self, ids: Mapping[str, Any]) -> None:
        pass

    def finish(self, result: Mapping[str, Any]) -> None:
        pass


def read_made_with(workdir: Path) -> dict[str, Any]:
    """What a run was made with, in the terms of today.

    Raises:
      UserError: its ``config.json`` is missing or damaged.
    """
    try:
        return in_terms_of_today(dict(read_json(workdir / CONFIG).get("made_with", {})))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{workdir / CONFIG} is damaged ({error}); start the run anew, with `overwrite`"
        ) from None


def in_terms_of_today(found: dict[str, Any]) -> dict[str, Any]:
    """What a run of any version was made with, as one of this version would say it."""
    if not found:
        return found
    found.setdefault("network", "crysgnn")
    model, settings = dict(found.get("model", {})), dict(found.get("settings", {}))
    # The first version named no pull.
    first = "property" in settings and "pull" not in settings
    if found["network"] == "cgcnn":  # which was three networks in one, by its settings
        frozen = model.pop("freeze_encoder", False)
        if model.pop("classification", False):
            found["network"] = "cgcnn-classifier"
        elif first and (found.get("command") == "finetune" or found.get("start")):
            found["network"] = settings["student"] = "fine-tuned"
            model["freeze_encoder"] = frozen
    elif found["network"] == "crysxpp":
        model.setdefault("embedding_bias", True)
    model.pop("n_triplet", None)  # now the length of an array of the batch
    if "property" in settings:
        settings = {"pull": "released", "taught_by": 0, **settings}
    for name, values in {"model": model, "settings": settings}.items():
        if name in found:
            found[name] = values
    return found


def _unwritable(path: Path | str, error: OSError) -> UserError:
    if of_the_disk(error):
        return UserError(f"`workdir` {written(error, path)}")
    return UserError(
        f"`workdir` {path} cannot be written to ({error.strerror}); name another directory"
    )


def require_same(theirs: Mapping[str, Any], ours: Mapping[str, Any], where: Path) -> None:
    """Check that a run may go on under the settings given.

    Raises:
      UserError: names the first setting that differs, and both values.
    """
    old, new = _flat(theirs), _flat(ours)
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            more = ""
            if name == "settings.epochs" and (new.get(name) or 0) > (old.get(name) or 0):
                more = ", `continued` for more epochs of a finished run"
            raise UserError(
                f"`workdir` {where} holds a run with {_named(name)} {_shown(old.get(name))}, and "
                f"this one has {_shown(new.get(name))}; give the same, another `workdir`{more}, or "
                "`overwrite`"
            )


def require_alike(first: Mapping[str, Any], ours: Mapping[str, Any], who: str) -> None:
    """Check that a process would train the run that the first one would.

    Raises:
      UserError: names the first setting that differs, and both values.
    """
    theirs, own = _flat(first), _flat(ours)
    for name in sorted({*theirs, *own}):
        if theirs.get(name) != own.get(name):
            raise UserError(
                f"{who} has {_named(name)} {_shown(own.get(name))}, and process 0 "
                f"{_shown(theirs.get(name))}; give all the same command and data, or "
                "`num_processes` 1 to each for runs of their own"
            )


def _named(path: str) -> str:
    """A setting as a parameter where it has a flag: ``settings.epochs`` is `epochs`."""
    folder, _, name = path.rpartition(".")
    return f"`{name}`" if folder == "settings" else path


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            out |= _flat(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = value
    return out


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run.

    Raises:
      UserError: it is missing or damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
        return found
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {path.parent} is not a run's directory") from None
    except ValueError as error:
        remedy = "start the run anew, with `overwrite`"
        if path.name == RESULT:
            remedy = "delete it, and the command that trained the run writes it again"
        raise UserError(f"{path} is damaged ({error}); {remedy}") from None


def environment() -> dict[str, Any]:
    """Versions, commit and machine, for the record."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "moyopy")
    return {
        "crysgnn_jax": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
    }


def _commit() -> str | None:
    """The commit of a checkout, marked where files differ from it; None if there is none."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    git = lambda *words: subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True
    )
    try:
        head, status = git("rev-parse", "HEAD"), git("status", "--porcelain", "-uno")
    except FileNotFoundError:  # git is not installed
        return None
    if head.returncode != 0:
        return None
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")
