"""What holds for every unit test."""

from hypothesis import HealthCheck, settings

# Examples are not timed: a busy machine is no failure.
settings.register_profile("glm-rag", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("glm-rag")
