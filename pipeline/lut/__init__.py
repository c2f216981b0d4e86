"""`handset lut`: the subcommands over `latency_luts`, `pipeline.sweep` and `pipeline.validation`, and what they print."""
