"""From files to pairs to splits. Standard library only at import; knows nothing of tokens or models."""
