"""A shared library with C functions as an implementation: `refllm verify --lib ./libmine.so`.

`interfaces` says what the function of each operation is given, from the golden files; `header` writes that as C;
`calls` calls it, with guards around every array; `Library` is the implementation, in a process of its own.
"""

from refllm.verify.library.header import START as HEADER_START
from refllm.verify.library.header import header
from refllm.verify.library.implementation import Library
from refllm.verify.library.interfaces import Interface, interfaces

__all__ = ["HEADER_START", "Interface", "Library", "header", "interfaces"]
