raise RuntimeError("this must not be imported by an older kit")
