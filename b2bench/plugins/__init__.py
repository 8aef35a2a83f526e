"""For authors of plugins: a file to start from, and the checks that it has to pass."""
