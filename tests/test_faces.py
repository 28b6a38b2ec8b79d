"""What explorers share: answers to controls, and a status that is a sentence whatever broke."""

import io
import re
from base64 import b64decode

import ipywidgets as widgets
import pandas as pd
import pytest

from lab.explore.faces import Answers, Status, download


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("two <b> wanted, $one$ came"), ">two &lt;b&gt; wanted, $one$ came<"),
        (LookupError("no such model"), ">no such model<"),
        (KeyError("column"), ">map failed: KeyError: &#x27;column&#x27;<"),
        (IndexError("out of range"), ">map failed: IndexError: out of range<"),
        (RuntimeError("fault"), ">map failed: RuntimeError: fault<"),
        (MemoryError(), ">map failed: MemoryError<"),
    ],
)
def test_an_error_ends_as_a_sentence_and_a_fault_of_ours_says_its_kind(error, said):
    status = Status()
    with status.during("map"):
        raise error
    assert status.failed and said in status._line.value
    with status.during("map") as move:
        move(0.5)
    assert not status.failed and status._bar.layout.display == "none"


def test_an_interrupt_is_said_and_goes_on():
    status = Status()
    with pytest.raises(KeyboardInterrupt), status.during("a long pass"):
        raise KeyboardInterrupt
    assert status.failed and "a long pass: interrupted" in status._line.value


def test_a_change_by_the_program_has_no_answer_even_inside_an_answer():
    answers, one, other, seen = Answers(), widgets.IntSlider(), widgets.IntSlider(), []

    def answer():
        seen.append((one.value, other.value))
        with answers.silent():
            other.value = 7

    answers.to([one, other], answer)
    one.value = 3
    with answers.silent(), answers.silent():
        one.value = 4
    other.value = 8
    assert seen == [(3, 0), (4, 8)]


def test_what_went_wrong_brings_its_own_ground_and_the_rest_the_colours_of_the_theme():
    status = Status()
    assert "style" not in status._line.value, "a fixed colour is unreadable in one theme or other"
    status.fail("no")
    look = re.search('style="([^"]*)"', status._line.value).group(1)
    assert "background:" in look and "color:" in look.split("background:")[1]


def test_saved_numbers_are_those_of_the_table_and_hold_no_markup():
    table = pd.DataFrame({"text": ['<b>, "a"', "é\nb"], "value": [0.25, -1], "empty": None})
    link = download(table, "numbers")
    raw = b64decode(re.search('base64,([^"]+)', link).group(1))
    assert 'download="numbers.csv"' in link and "<b>" not in link
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(raw)), table.drop(columns="empty"))
