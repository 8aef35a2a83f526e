"""What is measured without training a run: baselines, profiles, galleries."""
