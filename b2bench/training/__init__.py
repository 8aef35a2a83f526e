"""A run from its start to its end: what is trained, kept, looked after and recorded."""
