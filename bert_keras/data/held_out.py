"""Which rows of a stream are held out for evaluation."""


def is_held_out(number: int, share: float, first: float = 0.0) -> bool:
    """Whether row `number`, counted from 0, is held out.

    Of the first n rows int(n * share + first) are: both ends are rounded
    alike. (With `before + share` for the second one, a share of 1/3 would hold
    out 22 % of the rows.)

    first: 0..1, where among the rows the first one is.
    """
    before, after = number * share + first, (number + 1) * share + first
    return int(after) > int(before)
