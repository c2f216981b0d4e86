"""A latency table against networks that it was not made of: `handset lut validate`."""
