"""Write the table of rooms into the page on architecture.

    python docs/rooms.py

Each row is a module or a folder, with the first line of its docstring. A test compares
the page with what this script would write.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sknas"
PAGE = ROOT / "docs" / "architecture.md"
TABLE = re.compile(r"(?<=<!-- rooms -->\n).*?(?=<!-- end of rooms -->)", re.S)


def first_line(path):
    """The first line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, f"{path.name} has no docstring"
    return docstring.splitlines()[0]


def rooms(folder):
    """The rows of a folder: its modules at the root, its folders below."""
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield path.name, first_line(path), ""
    for init in sorted(folder.glob("*/__init__.py")):
        names = sorted(p.stem for p in init.parent.iterdir() if p.name[:2] != "__")
        yield f"{init.parent.name}/", first_line(init), ", ".join(names)


def table():
    """The table of rooms, with the modules of each folder."""
    rows = [f"| `{name}` | {job} | {inside} |" for name, job, inside in rooms(PACKAGE)]
    return "\n".join(["| room | job | modules |", "| --- | --- | --- |", *rows, ""])


def with_table(text):
    """The page with today's table."""
    return TABLE.sub(lambda _: table(), text)


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
