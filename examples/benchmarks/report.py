"""Write docs/benchmarks.md and the pages below it.

    python examples/benchmarks/report.py

The texts are in pages/, where a line such as $kills stands for a table or a figure that
is made of the files in results/.
"""

from pathlib import Path
from string import Template

from _markdown import DOCS
from _peers_report import PARTS as PEERS
from _promises_report import PARTS as PROMISES
from _search_report import PARTS as SEARCH
from _strategies_report import PARTS as STRATEGIES

TEXTS = Path(__file__).parent / "pages"


def main():
    makers = PEERS | SEARCH | STRATEGIES | PROMISES
    parts = {name: make() for name, make in makers.items()}
    for path in TEXTS.rglob("*.md"):
        page = Template(path.read_text()).substitute(parts)
        (DOCS / path.relative_to(TEXTS)).write_text(page)


if __name__ == "__main__":
    main()
