"""What the judge compares."""


def beginning(text: str, letters: int) -> str:
    """Return the first letters of a text, in lower case."""
    return text.strip().lower()[:letters]
