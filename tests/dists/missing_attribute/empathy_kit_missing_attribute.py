"""The entry point names a plugin object that is not here."""
