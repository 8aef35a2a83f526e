"""The embedded world: a Stable Diffusion small enough for a CPU, and the judges that measure it."""
