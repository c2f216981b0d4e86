"""`handset compress`: methods of compression side by side on one network, in accuracy, size and measured latency."""
