"""Selects the rows of a stream that are held out for evaluation."""


def is_held_out(number: int, share: float, first: float = 0.0) -> bool:
    """Returns whether row `number`, counted from 0, is held out.

    int(n * share + first) of the first n rows are held out. `after` is computed
    by a multiplication as `before` is: with `before + share`, rounding errors
    would make a share of 1/3 hold out 22 % of the rows.

    first: in [0, 1); the larger, the earlier is the first held-out row.
    """
    before, after = number * share + first, (number + 1) * share + first
    return int(after) > int(before)
