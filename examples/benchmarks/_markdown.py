"""Tables of the page of benchmarks."""


def markdown(cells):
    """A frame of texts as a Markdown table, its index first."""
    head = [cells.index.name or "table", *map(str, cells.columns)]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in cells.itertuples()]
    return "\n".join(lines) + "\n"
