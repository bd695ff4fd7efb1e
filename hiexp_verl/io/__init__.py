"""Files: rows, data sets, atomic writers."""
