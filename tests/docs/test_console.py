"""The examples of the documentation print what it says they print.

A block of ``console`` holds commands, each after ``$``, and what follows is their output: ``…``
within a line stands for any text, on a line of its own for any lines. The blocks of a page run one
after the other in a folder that holds ``crystals/``, the example structures, and ``weights/``,
those of a network as PyTorch would name them.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = {
    page.relative_to(ROOT).as_posix(): BLOCK.findall(page.read_text(encoding="utf-8"))
    for page in sorted((ROOT / "docs").rglob("*.md"))
}


def steps(block):
    """(command, expected output) of each ``$`` of a block."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        # A command goes on where its line ends in a backslash.
        command, _, expected = re.sub(r"\\\n", " ", part).partition("\n")
        yield command, expected


def pattern(expected):
    """What output must look like."""
    out = ""
    for line in expected.splitlines():
        if line.strip() == "…":
            out += r"(?:.*\n)*?"
        else:
            # Columns are as wide as what the ellipsis stands for lets them be.
            out += ".*?".join(map(re.escape, re.split("… *", line.rstrip()))) + r"[ ]*\n"
    return out


def test_an_ellipsis_is_any_text_of_a_line_or_any_lines():
    assert re.fullmatch(pattern("a … c\n…\nend\n"), "a b c\n1\n2\nend\n")
    assert re.fullmatch(pattern("a … c\n…\nend\n"), "a b c\nend\n")
    assert not re.fullmatch(pattern("a … c\n"), "a b\nc\n")
    assert not re.fullmatch(pattern("a\n"), "a\nb\n")


def test_every_command_has_an_example():
    from crysgnn_jax.__main__ import COMMANDS

    for name in COMMANDS:
        blocks = PAGES[f"docs/commands/{name}.md"]
        assert any(f"$ crysgnn {name} " in block + " " or f"crysgnn {name}\n" in block
                   for block in blocks), name  # fmt: skip


LONG = {
    f"docs/commands/{name}.md"
    for name in ("pretrain", "distill", "finetune", "compare", "dashboard", "debias")
}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in LONG else name
        for name, blocks in PAGES.items()
        if blocks
    ],
)
def test_a_page_shows_what_is_printed(page, tmp_path, tmp_path_factory):
    for name in ("crystals", "weights"):
        shutil.copytree(ROOT / "docs" / "examples" / name, tmp_path / name)
    cache = tmp_path_factory.getbasetemp() / "console-cache"
    environment = {**os.environ, "CRYSGNN_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    environment |= {"COLUMNS": "200", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    crysgnn = f"{shlex.quote(sys.executable)} -m crysgnn_jax"
    for block in PAGES[page]:
        for command, expected in steps(block):
            done = subprocess.run(
                re.sub(r"(^|[|;&] *)crysgnn\b", rf"\1{crysgnn}", command),
                shell=True,
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=300,
            )
            assert re.fullmatch(pattern(expected), done.stdout), (
                f"{page}: $ {command}\nprinted\n{done.stdout}\nand not\n{expected}"
            )
