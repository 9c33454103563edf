"""One run: what is chosen, built, trained, recorded, reported, and loaded again."""
