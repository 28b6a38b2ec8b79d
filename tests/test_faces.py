"""What explorers share: answers to controls, and a status that is a sentence whatever broke."""

import ipywidgets as widgets
import pytest

from lab.explore.faces import Answers, Status


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
