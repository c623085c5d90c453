"""Pages of which some is generated: a block stands between ``<!-- NAME -->`` and ``<!-- end of NAME
-->``."""


def replaced(page: str, name: str, text: str) -> str:
    """``page`` with ``text``, which ends with a line's end, as its block ``name``.

    Raises ``ValueError`` where the page has not exactly one such block.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended) or begin in after:
        raise ValueError(f"the page needs one block between {begin.strip()} and {end.strip()}")
    return f"{before}{begin}{text}{end}{after}"
