"""The conformance kit: small laws that a mechanism keeps, by name.

from effbench.conformance import checks_for

@pytest.mark.parametrize("check", checks_for(MECHANISM), ids=str)
def test_conformance(check):
    check()
"""

from effbench.conformance.checks import LAWS, STRICT, Check, Finding, checks_for
from effbench.conformance.trial import Broken, NotApplicable

__all__ = ["LAWS", "STRICT", "Broken", "Check", "Finding", "NotApplicable", "checks_for"]
