"""Arms side by side: episodes, rows, tables with intervals."""
