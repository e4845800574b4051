"""Documents and MIP samples to fixed-length rows: plan, spans, rows, assemble, shards, verify."""
