class Odd(Exception):
    def __str__(self):
        raise RuntimeError("and this as well")


raise Odd
