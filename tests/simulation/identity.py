"""Who a machine is, as it lies on its disk."""

from dataclasses import dataclass

from tests.simulation.door import Certificate


@dataclass(frozen=True, slots=True)
class Identity:
    """identity.json"""

    certificate: Certificate
    kept_at: float
    token_id: str

    @property
    def machine_id(self) -> str:
        return self.certificate.machine_id

    @property
    def not_before(self) -> float:
        return self.certificate.not_before

    @property
    def not_after(self) -> float:
        return self.certificate.not_after
