class Stop(BaseException):
    """Neither an Exception nor a way out."""


raise Stop("enough")
