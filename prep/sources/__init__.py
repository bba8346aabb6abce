"""Where music comes from: one module a corpus, each giving multitracks and what it had to leave out."""
