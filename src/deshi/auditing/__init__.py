"""Checks of what makes a figure wrong: in deshi's own artifacts, and in files of any tool."""

from deshi.auditing._finding import CHECKS, SEVERITIES, Check, Finding, Severity, exit_code, in_order
from deshi.auditing._pair import Names, PairAudit, audit_pair
from deshi.auditing._pairwise import PairwiseEvidence, pairwise_evidence
from deshi.auditing._provenance import audit_soft_labels
from deshi.auditing._result import AuditResult, Checked
from deshi.auditing._run import audit
from deshi.auditing._subject import Subject, find_subject

__all__ = [
    "CHECKS",
    "SEVERITIES",
    "AuditResult",
    "Check",
    "Checked",
    "Finding",
    "Names",
    "PairAudit",
    "PairwiseEvidence",
    "Severity",
    "Subject",
    "audit",
    "audit_pair",
    "audit_soft_labels",
    "exit_code",
    "find_subject",
    "in_order",
    "pairwise_evidence",
]
