"""The kit's own plugins. They enter through the same hooks as anybody's; heavy imports stay inside the builders."""
