"""Everything that is written for readers: HTML, Markdown, the paper's table, views of the terminal."""
