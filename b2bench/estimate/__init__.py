"""What a run will cost, counted before anything is trained."""
