"""Where a run is within a phase, and that it is alive."""

from b2bench.training.listener import Silent
from b2bench.training.phase import Phase


def test_every_phase_call_and_step_is_a_sign_of_life() -> None:
    signs: list[int] = []
    phase = Phase(Silent(), lambda: signs.append(phase.done))
    phase.begin("sampling", 4, 8)
    phase.called(4, gradient=False)
    phase.called(4, gradient=True)
    phase.stepped(1, 2)
    assert signs == [0, 4, 8, 8]
