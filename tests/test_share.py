import pytest

from lab import share


def test_a_share_is_two_numbers():
    assert [share.read(text) for text in ("3/8", "1/1", "8/8")] == [(3, 8), (1, 1), (8, 8)]


@pytest.mark.parametrize("text", ["3", "0/2", "3/2", "1/²", "-1/2", "", "1/", "1/2/3"])
def test_what_is_no_share_is_refused_with_what_came(text):
    with pytest.raises(ValueError, match="a share is i/n") as caught:
        share.read(text)
    assert text in str(caught.value) and "such as 1/4" in str(caught.value)
