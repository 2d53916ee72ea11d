"""The one error class for a user's mistake: entry points print it as one line and exit with code 2."""


class UserError(ValueError):
    """A mistake in a file, a field or an argument; the message names it and the remedy in one line."""
