"""What the user gave cannot be used."""


class InputError(ValueError):
    """A file, flag or text from outside does not fit.

    The message says what was expected, what came and what to do. Mains print
    it as one line and exit 1; every other exception is a bug and keeps its
    traceback.
    """
