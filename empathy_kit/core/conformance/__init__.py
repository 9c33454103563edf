"""What the kit promises about every plugin, one check a promise. Each raises AssertionError where the promise is broken."""
