"""Contract tests to inherit in pytest: for students, losses, scorers of teachers, distillation terms and data sources.

Install pytest (``pip install deshi[testing]``), and let pytest explain failed asserts of this package by
``pytest.register_assert_rewrite("deshi.testing")`` in ``conftest.py``.
"""

from deshi.testing.losses import LossContract
from deshi.testing.sources import SourceContract
from deshi.testing.students import StudentContract
from deshi.testing.teachers import TeacherContract
from deshi.testing.terms import TermContract, TermExample

__all__ = ["LossContract", "SourceContract", "StudentContract", "TeacherContract", "TermContract", "TermExample"]
