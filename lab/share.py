"""A share of some work: the i-th of n, counted from 1, as for the tasks of a Slurm array."""


def read(text: str) -> tuple[int, int]:
    """(i, n) of "i/n".

    Raises:
        ValueError: it is not of that form, or not 1 <= i <= n.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal()):
        raise ValueError(f"a share is i/n, such as 1/4; got {text!r}")
    return check(int(number), int(count))


def check(number: int, count: int) -> tuple[int, int]:
    """The two numbers.

    Raises:
        ValueError: not 1 <= number <= count.
    """
    if not 1 <= number <= count:
        raise ValueError(f"a share is i/n with 1 <= i <= n, such as 1/4; got {number}/{count}")
    return number, count
