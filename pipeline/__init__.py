"""Everything that knows torch: models, compression, export, profiling, search, reports."""
