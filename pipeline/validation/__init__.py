"""A latency table against networks that it was not made of: `handset lut validate`."""

RESULT, PAGE = "validation.json", "validation.html"
"""In a run folder, beside what `handset bench` leaves there."""
