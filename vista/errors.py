"""The one exception that means "the user can mend this"."""


class UserError(Exception):
    """A mistake in a config, a file or an artifact, told in one short sentence.

    The message names the file or key, says what was expected and what to do. The command line
    prints it without a traceback and exits with status 2.
    """
