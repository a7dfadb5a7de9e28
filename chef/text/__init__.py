"""Text helpers: terminal colours, invisible characters, source code in lines, units."""
