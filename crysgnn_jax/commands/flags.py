"""Flags: generated from the settings they set, and those that several commands have in common.

Without JAX, so that ``--help`` and a mistyped flag are answered at once.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from crysgnn_jax.errors import UserError, printable
from crysgnn_jax.graphs.settings import MAX_ATOMS, FeaturiserSettings
from crysgnn_jax.settings import settings_of
from crysgnn_jax.training.settings import (
    TEACHER,
    PropertySettings,
    TrainingSettings,
    UntaggedSettings,
)

AUTOENCODER = Path("runs/crysae")
"""Where `pretrain --network crysae` writes."""


class Parser(argparse.ArgumentParser):
    """Reports a bad flag in one line, and takes no abbreviated one.

    Args:
      name: of the command.
      about: docstring of the command's module: what it does in a line, and examples.
    """

    def __init__(self, name: str, about: str):
        in_a_clone = Path(sys.argv[0]).parent.name == "experiments"
        prog = f"python -m experiments.{name}" if in_a_clone else f"crysgnn {name}"
        first, _, examples = about.strip().partition("\n")
        super().__init__(
            prog=prog,
            description=first,
            epilog="examples:" + examples.replace(f"\ncrysgnn {name}", f"\n  {prog}").rstrip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.command = name
        self._within = ""

    def error(self, message: str) -> NoReturn:
        # "argument --epochs: 0: give a …" says "argument" where the flag says enough.
        message = re.sub(r"^argument (\S+): (?=.*: give )", r"\1 ", message)
        message = printable(self._within + message)
        self.exit(2, f"{self.prog}: error: {message} (see --help)\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The flags, those of ``--config`` among them where there is one: what is given on the
        command line is taken from there alone."""
        words = list(sys.argv[1:] if args is None else args)
        given = vars(self._given(words))
        path = given.get("config")
        if path is not None:
            from crysgnn_jax.commands.config import words_of

            try:
                # Of two flags that exclude each other, the one on the command line.
                for group in self._mutually_exclusive_groups:
                    if any(action.dest in given for action in group._group_actions):
                        given |= {action.dest: None for action in group._group_actions}
                words = [*words_of(path, self.command, self._actions, given), *words]
            except UserError as error:
                self.error(str(error).replace("`config`", "--config"))
            self._within = f"--config {path}: "
        return super().parse_args(words, namespace)

    def _given(self, words: list[str]) -> argparse.Namespace:
        """What stands on the command line itself, without defaults."""
        if not any(action.dest == "config" for action in self._actions):
            return argparse.Namespace()
        kept = [(action, action.default, action.required) for action in self._actions]
        for action, _, _ in kept:
            action.default, action.required = argparse.SUPPRESS, False
        try:
            return super().parse_args(words)
        finally:
            for action, default, required in kept:
                action.default, action.required = default, required

    def flag_of(self, parameter: str) -> str | None:
        """The flag that sets a parameter of the library; None where there is none."""
        flags: dict[str, str] = {}
        for action in self._actions:
            if action.option_strings:
                flags.setdefault(action.dest, action.option_strings[0])
        for name in (parameter, f"{parameter}s", f"{parameter[:-1]}ies"):
            if name in flags:
                return flags[name]
        return None


def _number(kind: type, fits: Callable[[Any], bool], wanted: str) -> Callable[[str], Any]:
    """An argparse type: a number within bounds. What it says of another value is all of the
    message, for argparse would call it an invalid value and not say what to give."""
    what = f"give a {'whole ' if kind is int else ''}number {wanted}"

    def convert(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not (fits(value) and value < float("inf")):
            raise argparse.ArgumentTypeError(f"{text}: {what}")
        return value

    return convert


def positive(kind: type) -> Callable[[str], Any]:
    """An argparse type: a number greater than 0."""
    return _number(kind, lambda value: value > 0, "greater than 0")


def not_negative(kind: type) -> Callable[[str], Any]:
    """An argparse type: a number of at least 0."""
    return _number(kind, lambda value: value >= 0, "of at least 0")


fraction = _number(float, lambda value: 0 <= value <= 1, "from 0 to 1")
open_fraction = _number(float, lambda value: 0 < value < 1, "above 0 and below 1")
positive_fraction = _number(float, lambda value: 0 < value <= 1, "above 0 and up to 1")

_TYPES = {
    "positive int": (positive(int), "N"),
    "natural int": (not_negative(int), "N"),
    "positive": (positive(float), "X"),
    "not negative": (not_negative(float), "X"),
    "fraction": (fraction, "X"),
}
"""Kind of a setting → argparse type and metavar of its flag."""


def add_settings(
    group: Any,
    settings: type,
    names: Sequence[str] | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    set_defaults: bool = True,
) -> None:
    """A flag for each setting of a dataclass, see `settings.setting`.

    Args:
      group: parser, or a group of its flags.
      settings: the dataclass.
      names: the settings to take; all where not given.
      defaults: of the command, where they differ from the settings' own.
      set_defaults: whether a flag that is not given has its default; else it is None, for
        something else decides then.
    """
    defaults = defaults or {}
    for field in settings_of(settings):
        if names is not None and field.name not in names:
            continue
        about = field.metadata
        default = defaults.get(field.name, field.default)
        text = about["help"]
        if field.name in defaults:
            text = text.split(" (default")[0]
        if about["unit"]:
            text += f", {about['unit']}"
        if default is not None and "(default" not in text:
            shown = f"{default:g}" if isinstance(default, float) else default
            text += f" (default {shown})"
        flag = "--" + field.name.replace("_", "-")
        if isinstance(default, bool):
            group.add_argument(flag, action="store_true", help=text)
            continue
        kind, metavar = _TYPES.get(about["kind"], (None, about["metavar"] or None))
        group.add_argument(
            flag,
            type=kind,
            choices=about["choices"] or None,
            default=default if set_defaults else None,
            metavar=metavar,
            help=text,
        )


def given(args: argparse.Namespace, settings: type) -> dict[str, Any]:
    """Setting → value, of those settings of a dataclass that the flags say something of."""
    values = {field.name: getattr(args, field.name, None) for field in settings_of(settings)}
    return {name: value for name, value in values.items() if value is not None}


def add_training_flags(
    parser: argparse.ArgumentParser, names: Sequence[str], defaults: Mapping[str, Any] | None = None
) -> None:
    """How long and where to train.

    Args:
      parser: of the command.
      names: settings of `TrainingSettings` that the command has a say in; how often it logs and
        saves, and what else it logs to, are always among them.
      defaults: of the command.
    """
    group = parser.add_argument_group("training")
    names = (*names, "log_every", "checkpoint_seconds", "tensorboard", "wandb")
    add_settings(group, TrainingSettings, names, defaults=defaults)
    add_devices_flag(group)


def add_devices_flag(group: Any) -> None:
    """Where to run."""
    group.add_argument(
        "--devices",
        type=positive(int),
        metavar="N",
        help="local devices to use, one batch each (default: all)",
    )


def add_processes_flags(parser: argparse.ArgumentParser) -> None:
    """The other processes of a run."""
    group = parser.add_argument_group(
        "several processes", "found by themselves on SLURM, TPU pods, Kubernetes and Open MPI"
    )
    group.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        help="where the first process listens for the others; given to all (default: found)",
    )
    group.add_argument(
        "--process-id",
        type=not_negative(int),
        metavar="I",
        help="which of the processes this is, from 0 (default: found)",
    )
    group.add_argument(
        "--num-processes",
        type=positive(int),
        metavar="N",
        help="how many there are; 1 for a run of its own among others (default: found)",
    )


def add_student_flags(parser: argparse.ArgumentParser, *, settings: bool = True) -> None:
    """How a property predictor is trained; ``settings``: whether its network can be changed."""
    group = parser.add_argument_group("student")
    if settings:
        add_set_flag(group)
    add_settings(group, PropertySettings, ("loss", "raw_targets"))
    add_settings(group, TrainingSettings, ("weight_decay", "patience"), defaults={"patience": 30})


def add_set_flag(group: argparse._ActionsContainer) -> None:
    """How a student's network differs from the published one."""
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the student's network, such as width=32; may be repeated "
        "(default: as published)",
    )


def add_teacher_flag(parser: argparse.ArgumentParser, *, files: bool = False) -> None:
    """Which network to learn from; ``files``: or of which the embeddings lie in a file."""
    parser.add_argument(
        "--teacher",
        type=Path,
        default=Path(TEACHER),
        metavar="NAME|DIR|FILE" if files else "NAME|DIR",
        help="the teacher that comes with the package, a pre-training run, or converted weights"
        + (
            "; an .npz of atom embeddings, as embed writes it; or chgnet, which was trained with "
            "labels of the Materials Project and needs the extra chgnet"
            if files
            else ""
        )
        + f" (default {TEACHER})",
    )


def add_distillation_flags(parser: argparse.ArgumentParser) -> None:
    """From which networks to learn, and how."""
    add_teacher_flag(parser, files=True)
    add_settings(parser, PropertySettings, ("pull",))
    parser.add_argument(
        "--unlabelled",
        action="append",
        default=[],
        metavar="NAME|PATH",
        help="data set or path of crystals on which the student follows the teacher, whatever "
        "labels they have; may be repeated (default: the start of the student that comes with the "
        "package, or else bundled; and always those of --data that are not tested on)",
    )
    add_settings(parser, UntaggedSettings)
    add_settings(parser, PropertySettings, ("unlabelled_per_batch", "taught_by"))
    parser.add_argument(
        "--autoencoder",
        type=Path,
        metavar="DIR",
        help="for crysxpp: the auto-encoder whose convolutions it starts from (default: where a "
        "teacher gives it a start that comes with the package, that start; else "
        f"{AUTOENCODER} where there is one, or random weights)",
    )


def add_label_flags(parser: argparse.ArgumentParser) -> None:
    """What to predict, of which crystals."""
    add_labelled_data_flag(parser)
    parser.add_argument(
        "--property",
        metavar="NAME",
        help="label to predict (default: the data set's own, or the only one there is)",
    )
    add_settings(parser, PropertySettings, ("unit",))
    add_split_flag(parser)


def add_labelled_data_flag(parser: argparse.ArgumentParser) -> None:
    """Which crystals to learn a property from."""
    parser.add_argument(
        "--data",
        default="formation_energy",
        metavar="NAME|PATH",
        help="data set or path of crystals with labels (default formation_energy)",
    )


def add_split_flag(parser: argparse.ArgumentParser) -> None:
    """How the crystals are divided."""
    parser.add_argument(
        "--split",
        default="random",
        metavar="RULE|FILE",
        help="80/10/10 %% by seed: random, or formula (no reduced formula on two sides); or "
        "column:NAME of the data, such as column:mp2018_split; or the splits.json of another run "
        "(default random)",
    )


def add_record_flag(parser: argparse.ArgumentParser) -> None:
    """A file for the record."""
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="also write the results, with the command, settings and versions, to a JSON file",
    )


def run_named(text: str) -> Path:
    """An argparse type: the folder of a run of that name."""
    if Path(text).name != text:
        raise argparse.ArgumentTypeError(f"{text}: give a name, or a path as --workdir")
    return Path("runs") / text


def add_run_flags(parser: argparse.ArgumentParser, workdir: str) -> Any:
    """The run's directory; the group of flags, for those that are added to it."""
    group = parser.add_argument_group("run")
    where = group.add_mutually_exclusive_group()
    where.add_argument(
        "--workdir",
        type=Path,
        metavar="DIR",
        help=f"where the run is written; an interrupted one goes on (default {workdir})",
    )
    where.add_argument(
        "--name",
        dest="workdir",
        type=run_named,
        metavar="NAME",
        help="what the run is called: the same as --workdir runs/NAME (default: see there)",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="delete the run that --workdir holds, and start anew",
    )
    return group


def add_config_flag(group: Any) -> None:
    """A file with flags."""
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="flags by name, as YAML or JSON, or the config.json of a run; what is given on the "
        "command line counts before it (default: none)",
    )


def add_outcome_flags(group: Any) -> None:
    """What becomes of a run that is finished."""
    group.add_argument(
        "--continue",
        dest="continued",
        action="store_true",
        help="let the finished run that --workdir holds go on from its best weights, to as many "
        "epochs as --epochs says",
    )
    add_export_flag(group)


def add_export_flag(group: Any) -> None:
    """A file for the model."""
    group.add_argument(
        "--export",
        type=Path,
        metavar="FILE",
        help="also write the trained network to one file (safetensors), which --model and "
        "--teacher take; of twins the distilled one (default: none)",
    )


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """How crystals become graphs."""
    group = parser.add_argument_group("crystals and graphs")
    group.add_argument(
        "--limit",
        type=positive(int),
        metavar="N",
        help="use only N crystals of --data, drawn at random, always the same (default: all)",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="make a bad crystal an error instead of skipping and listing it",
    )
    group.add_argument(
        "--trust-code",
        action="append",
        default=[],
        metavar="MODULE",
        help="import this module, which a trained network that is loaded may then be of; code that "
        "a run names is not run otherwise (default: none; may be repeated)",
    )
    group.add_argument(
        "--max-atoms",
        type=positive(int),
        default=MAX_ATOMS,
        metavar="N",
        help=f"skip crystals of more than N atoms (default {MAX_ATOMS})",
    )
    add_settings(group, FeaturiserSettings, set_defaults=False)
    group.add_argument(
        "--cache",
        type=Path,
        metavar="DIR",
        help="where graphs are kept (default $CRYSGNN_CACHE or ~/.cache/crysgnn_jax)",
    )
    group.add_argument(
        "--workers",
        type=positive(int),
        metavar="N",
        help="processes that build graphs (default: one a CPU core)",
    )


class _Once(argparse.Action):
    """A flag that may be given once: `predict` takes several of ``--model``, and where there is one
    alone nobody should think that all were asked."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if getattr(namespace, self.dest) is not self.default:
            parser.error(f"{option_string} {values}: give one alone, there is another")
        setattr(namespace, self.dest, values)


def add_model_flags(parser: argparse.ArgumentParser, what: str, default: str | None = None) -> None:
    """A trained model, and the crystals to use it on.

    Args:
      parser: of the command.
      what: the help of ``--model``.
      default: the model's; None where it must be given.
    """
    parser.add_argument(
        "--model",
        action=_Once,
        type=Path,
        required=default is None,
        default=default and Path(default),
        metavar="NAME|DIR",
        help=what + (f" (default {default})" if default else ""),
    )
    add_source_flags(parser)


def add_source_flags(parser: argparse.ArgumentParser) -> None:
    """The crystals to use a trained model on, and how."""
    add_sources(parser)
    parser.add_argument(
        "--batch-size",
        type=positive(int),
        default=64,
        metavar="N",
        help="crystals of an average batch, a device (default 64)",
    )
    add_devices_flag(parser)


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Crystals, as arguments."""
    parser.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="data sets, paths or addresses (jarvis:NAME, mp:QUERY, optimade:URL) of crystals, as "
        "--data of the other commands takes them; - for standard input",
    )
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="SOURCE",
        help="the same as a SOURCE without a flag",
    )
