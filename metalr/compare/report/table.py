"""A table of values, and the same as Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field

from metalr.compare.report.text import Escape, Value, markdown, show, unescaped


@dataclass(frozen=True)
class Table:
    """Holds values in rows and columns.

    Attributes:
        title, note: above the table; the note says what its columns are.
        header: of the columns.
        rows: each as long as the header.
        strong: row and column of what is best.
    """

    title: str
    note: str
    header: list[str]
    rows: list[list[Value]]
    strong: set[tuple[int, int]] = field(default_factory=set)

    def text(self, escape: Escape = unescaped) -> list[list[str]]:
        """Formats the rows."""
        return [[show(value, escape) for value in row] for row in self.rows]

    def markdown(self) -> str:
        """Formats a Markdown section."""
        return f"## {self.title}\n\n{self.note}\n\n{self.body()}\n"

    def body(self) -> str:
        """Formats the Markdown table alone."""
        body = [
            [f"**{text}**" if (i, j) in self.strong else text for j, text in enumerate(row)]
            for i, row in enumerate(self.text(markdown))
        ]
        lines = [[markdown(name) for name in self.header], ["---"] * len(self.header), *body]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
