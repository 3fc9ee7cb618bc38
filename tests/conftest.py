"""Every test checks the types and shapes of the method at run time, and draws the same examples in every run."""

from hypothesis import settings
from jaxtyping import install_import_hook

install_import_hook("caguda.method", "beartype.beartype")

settings.register_profile("caguda", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("caguda")
