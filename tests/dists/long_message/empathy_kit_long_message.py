raise ValueError("\n".join(f"line {line}" for line in range(3)))
