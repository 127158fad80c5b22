from itertools import product

import pytest

from jobstore.errors import IllegalTransition
from jobstore.states import ACTIVE, FINAL, JobState, check_transition

LEGAL = {
    ("queued", "validating"),
    ("queued", "cancelled"),
    ("validating", "running"),
    ("validating", "queued"),
    ("validating", "succeeded"),
    ("validating", "failed"),
    ("validating", "cancelled"),
    ("running", "queued"),
    ("running", "succeeded"),
    ("running", "failed"),
    ("running", "cancelled"),
}


@pytest.mark.parametrize(("old", "new"), list(product(JobState, JobState)))
def test_a_job_goes_only_along_the_arrows(old: JobState, new: JobState) -> None:
    if (old, new) in LEGAL:
        check_transition(old, new)
    else:
        with pytest.raises(IllegalTransition, match=f"{old} cannot become {new}"):
            check_transition(old, new)


def test_every_state_but_queued_is_either_active_or_final() -> None:
    assert set(JobState) == {JobState.QUEUED} | ACTIVE | FINAL
    assert not ACTIVE & FINAL
