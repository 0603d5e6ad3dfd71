"""The one way in which kernels are compiled."""

from numba import njit

# Kernels run on threads (nogil) and divide as NumPy does. No kernel is called from C; leaving out
# the entry for it saves a tenth of the time to compile them all.
kernel = njit(  # pyrefly: ignore[no-matching-overload]
    cache=True,
    nogil=True,
    error_model="numpy",
    no_cfunc_wrapper=True,
)
