"""What there is and what was done, as data; ``terminal`` draws it."""
