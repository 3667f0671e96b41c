"""A bar on a terminal."""

import io

from crysgnn_jax.bars import Bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_it_says_what_is_done_and_how_far_it_is():
    stream = Terminal()
    bar = Bar("graphs of toys", 40, "crystals", stream, done=8)
    bar.update(20, "loss 0.5")
    bar.say("halfway [through] it")
    bar.update()
    bar.close()
    said = stream.getvalue()
    assert "graphs of toys" in said and "21/40" in said and "crystals" in said
    assert "halfway [through] it\n" in said and "loss 0.5" not in said.rsplit("21/40")[-1]


def test_what_goes_to_standard_output_goes_there(capsys):
    bar = Bar("predictions", 2, "crystals", Terminal())
    print("id,value")
    bar.close()
    assert capsys.readouterr().out == "id,value\n"


def test_the_cursor_is_seen_whatever_ends_the_process():
    stream = Terminal()
    bar = Bar("graphs", 2, "crystals", stream)
    assert stream.getvalue().rfind("\x1b[?25h") > stream.getvalue().rfind("\x1b[?25l")
    bar.close()
