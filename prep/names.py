"""Names from a file system, where any byte may stand, as text that every file format and terminal can take."""


def printable(name: str) -> str:
    """Bytes that are not UTF-8, which Python holds as lone surrogates, as escapes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
