"""Present a finished run: summary, table, charts, page, model card."""
