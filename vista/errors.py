"""The one exception that means "the user can mend this"."""


class UserError(Exception):
    """A mistake in a config, a file or an artifact, told in one short sentence.

    The message names the file or key, says what was expected and what to do. The command line
    prints it without a traceback and exits with status 2.
    """

    def __str__(self) -> str:
        """The message without control characters: names in it come from files, and what they hold
        must not act on a terminal.
        """
        text = super().__str__()
        return "".join(each if each.isprintable() or each == "\n" else "�" for each in text)
