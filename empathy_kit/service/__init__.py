"""Feedback while writing: a model behind HTTP, and the page that asks it."""
