"""The HTTP service. ``app.py`` has the routes, ``middleware.py`` the limits, ``schemas.py`` requests and responses.

Nothing is imported here: the modules need the extra ``serve``, whose absence ``deshi serve`` reports with a sentence.
"""

__all__: list[str] = []
