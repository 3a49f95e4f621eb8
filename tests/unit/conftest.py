"""What holds for the unit tests: a case that hypothesis made may take its time on a busy machine."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
