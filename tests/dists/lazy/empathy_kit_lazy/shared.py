class Settings:
    @property
    def __class__(self):
        raise RuntimeError("asked too early")


settings = Settings()
