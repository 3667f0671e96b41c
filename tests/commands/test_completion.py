"""Scripts by which a shell completes the command line."""

import shutil
import subprocess

import pytest

from crysgnn_jax.__main__ import COMMANDS, _module, main
from crysgnn_jax.commands import completion


def script(shell):
    return completion.script(shell, {name: _module(name) for name in COMMANDS})


def completed(tmp_path, *words):
    """What bash offers for the last of the words."""
    (tmp_path / "crysgnn.bash").write_text(script("bash"))
    quoted = " ".join(f"'{word}'" for word in ("crysgnn", *words))
    code = (
        f"source {tmp_path}/crysgnn.bash; COMP_WORDS=({quoted}); COMP_CWORD={len(words)}\n"
        "function=$(complete -p crysgnn | sed 's/.*-F \\([^ ]*\\).*/\\1/')\n"
        "$function crysgnn; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    return subprocess.run(["bash", "-c", code], capture_output=True, text=True).stdout.split()


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_knows_commands_flags_and_choices(tmp_path):
    assert set(COMMANDS) <= set(completed(tmp_path, ""))
    assert completed(tmp_path, "dis") == ["distill"]
    assert completed(tmp_path, "distill", "--stud") == ["--student"]
    assert completed(tmp_path, "distill", "--loss", "smo") == ["smooth_l1"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_one_too(shell):
    text = script(shell)
    assert "crysgnn" in text and "weight-decay" in text


def test_a_shell_that_is_not_known_is_told_in_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--completion", "tcsh"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: --completion tcsh: there is bash, zsh, fish\n"
