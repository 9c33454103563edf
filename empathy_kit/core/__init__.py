"""Everything that computes with torch. Knows no plugins, flags or tables: values in, tensors and numbers out."""
