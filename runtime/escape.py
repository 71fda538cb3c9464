"""Text from outside, made safe for one line of a terminal, a log or an error message.

Text from outside is text that this project did not write: a lease's holder, a server's error, a request's path, a cell
of a file. It can contain line breaks that forge a log line, escape sequences that rewrite a terminal, characters that
reverse the reading direction, and surrogates that no encoding can write. It can be megabytes long.
"""

SHORT = 200
"""Default limit, in characters: enough for a name, an address or the reason in an error."""

_MORE = "... ({} more characters)"
_ROOM_FOR_MORE = len(_MORE.format(10**12))


def one_line(value: object, limit: int = SHORT) -> str:
    r"""Return `value` as one printable line of at most `limit` characters.

    Every character that is not printable becomes an escape as in a Python string: `\n`, `\x1b`, `\u2028`, `\udc80`.
    Among white space, only the space is printable. A text that is cut ends with the number of missing characters. A
    text that is already one printable line, such as an earlier result, is returned unchanged. Backslashes are not
    doubled: the escapes are for people, not for a parser.

    Args:
        value: a text; bytes, which are read as UTF-8, with invalid bytes escaped; or any object with a `str`.
        limit: maximum number of characters, at least 64.
    """
    text = value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)
    if len(text) <= limit and text.isprintable():
        return text
    pieces = [piece if piece.isprintable() else _escaped(piece) for piece in text[:limit]]
    if len(text) <= limit and sum(map(len, pieces)) <= limit:
        return "".join(pieces)
    room, kept = limit - _ROOM_FOR_MORE, 0
    while len(pieces[kept]) <= room:
        room -= len(pieces[kept])
        kept += 1
    return "".join(pieces[:kept]) + _MORE.format(len(text) - kept)


def cut(text: str, limit: int) -> str:
    """Return at most `limit` (64 or more) characters of `text`, without escapes, for an encoder such as JSON's."""
    if len(text) <= limit:
        return text
    kept = limit - _ROOM_FOR_MORE
    return text[:kept] + _MORE.format(len(text) - kept)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
