raise ImportError("needs libfoo 2,\n  and cannot find it")
