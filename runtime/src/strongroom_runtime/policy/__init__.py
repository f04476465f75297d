"""The policy language and its decisions (Vault documentation, "Policies")."""

from strongroom_runtime.policy.acl import Acl, Decision
from strongroom_runtime.policy.model import Policy, PolicyError, Rule
from strongroom_runtime.policy.parsed import ParsedPolicies, sized_policy
from strongroom_runtime.policy.rules import parse_policy

__all__ = [
    "Acl",
    "Decision",
    "ParsedPolicies",
    "Policy",
    "PolicyError",
    "Rule",
    "parse_policy",
    "sized_policy",
]
