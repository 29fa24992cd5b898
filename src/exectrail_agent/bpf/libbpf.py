"""The few functions of libbpf 1.0 or newer that the bpf sensor needs, by ctypes.

Every call raises BpfError. Files of the kernel (maps, programs, links) are plain file descriptors.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any

LIBRARY = "libbpf.so.1"

MAP_ARRAY = 2
LINK_RAW_TRACEPOINT = 1
ATTACH_ITERATOR = 28

_WARN = 0
_LINE_MAX = 4096
_NAME_MAX = 128

_POSITION = struct.Struct("@L")
_HEADER = 8
_BUSY, _DISCARDED = 1 << 31, 1 << 30
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

_POINTER, _INT, _TEXT, _SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t
_U32, _U64 = ctypes.c_uint32, ctypes.c_uint64
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "bpf_iter_create": (_INT, (_INT,)),
    "bpf_link_create": (_INT, (_INT, _INT, _INT, _POINTER)),
    "bpf_map__reuse_fd": (_INT, (_POINTER, _INT)),
    "bpf_map__set_initial_value": (_INT, (_POINTER, _TEXT, _SIZE)),
    "bpf_map__set_max_entries": (_INT, (_POINTER, _U32)),
    "bpf_map_create": (_INT, (_INT, _TEXT, _U32, _U32, _U32, _POINTER)),
    "bpf_map_delete_elem": (_INT, (_INT, _TEXT)),
    "bpf_map_get_next_key": (_INT, (_INT, _TEXT, _POINTER)),
    "bpf_map_lookup_elem": (_INT, (_INT, _TEXT, _POINTER)),
    "bpf_map_update_elem": (_INT, (_INT, _TEXT, _TEXT, _U64)),
    "bpf_obj_get": (_INT, (_TEXT,)),
    "bpf_obj_get_info_by_fd": (_INT, (_INT, _POINTER, ctypes.POINTER(_U32))),
    "bpf_obj_pin": (_INT, (_INT, _TEXT)),
    "bpf_object__close": (None, (_POINTER,)),
    "bpf_object__find_map_by_name": (_POINTER, (_POINTER, _TEXT)),
    "bpf_object__find_map_fd_by_name": (_INT, (_POINTER, _TEXT)),
    "bpf_object__find_program_by_name": (_POINTER, (_POINTER, _TEXT)),
    "bpf_object__load": (_INT, (_POINTER,)),
    "bpf_object__open_mem": (_POINTER, (_TEXT, _SIZE, _POINTER)),
    "bpf_program__fd": (_INT, (_POINTER,)),
    "bpf_program__set_autoload": (_INT, (_POINTER, ctypes.c_bool)),
    "bpf_raw_tracepoint_open": (_INT, (_TEXT, _INT)),
    "libbpf_num_possible_cpus": (_INT, ()),
    "libbpf_set_print": (_POINTER, (_PRINT,)),
}


class BpfError(Exception):
    """libbpf or the kernel refused; `errno` is the kernel's reason, 0 if there is none."""

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.errno = number


@dataclass(frozen=True)
class MapInfo:
    """What a map is: its type is a number of the kernel's."""

    type: int
    key_size: int
    value_size: int
    max_entries: int
    name: bytes


class _MapInfo(ctypes.Structure):
    _fields_ = (
        ("type", _U32),
        ("id", _U32),
        ("key_size", _U32),
        ("value_size", _U32),
        ("max_entries", _U32),
        ("map_flags", _U32),
        ("name", ctypes.c_char * 16),
    )


class _LinkInfo(ctypes.Structure):
    _fields_ = (
        ("type", _U32),
        ("id", _U32),
        ("program", _U32),
        ("padding", _U32),
        ("tracepoint", _U64),
        ("length", _U32),
        ("end", _U32),
    )


class Libbpf:
    """The library. Raises BpfError where it is missing or older than 1.0."""

    def __init__(self, path: str = LIBRARY) -> None:
        try:
            self._library = ctypes.CDLL(path, use_errno=True)
            for name, (result, arguments) in _FUNCTIONS.items():
                function = getattr(self._library, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise BpfError(
                f"libbpf 1.0 or newer can't be used ({error}); it is in the distribution's package"
                " libbpf1 or libbpf"
            ) from None
        libc = ctypes.CDLL(None)
        self._format = libc.vsnprintf
        self._format.argtypes = (_POINTER, _SIZE, _TEXT, _POINTER)
        self._lines: deque[str] = deque(maxlen=8)
        self._print = _PRINT(self._note)
        self._library.libbpf_set_print(self._print)

    def call(self, what: str, name: str, *arguments: object) -> Any:
        """Call a function that returns a pointer, or a number that is negative on failure."""
        self._lines.clear()
        result = getattr(self._library, name)(*arguments)
        if _FUNCTIONS[name][0] is _POINTER:
            if result:
                return result
        elif result >= 0:
            return result
        number = ctypes.get_errno()
        said = "; ".join(self._lines)
        raise BpfError(f"{what}: {os.strerror(number)}" + (f" ({said})" if said else ""), number)

    def possible_cpus(self) -> int:
        """Return how many CPUs the kernel allows for; per-CPU values have that many parts."""
        return int(self.call("counting CPUs", "libbpf_num_possible_cpus"))

    def create_map(self, kind: int, name: str, key: int, value: int, entries: int) -> int:
        """Make a map; sizes are bytes."""
        arguments = (kind, name.encode(), key, value, entries, None)
        return int(self.call(f"making the map {name}", "bpf_map_create", *arguments))

    def pinned(self, path: str) -> int:
        """Open what is pinned at a path."""
        return int(self.call(path, "bpf_obj_get", os.fsencode(path)))

    def pin(self, file: int, path: str) -> None:
        """Pin a map or link."""
        self.call(f"pinning {path}", "bpf_obj_pin", file, os.fsencode(path))

    def map_info(self, file: int) -> MapInfo:
        """Return what a map is. The file has to be a map's."""
        info = _MapInfo()
        self._info(file, info)
        return MapInfo(info.type, info.key_size, info.value_size, info.max_entries, info.name)

    def tracepoint_of(self, file: int) -> bytes:
        """Return the raw tracepoint of a link, b"" if it is another link. It has to be a link's."""
        name = ctypes.create_string_buffer(_NAME_MAX)
        info = _LinkInfo(tracepoint=ctypes.addressof(name), length=_NAME_MAX)
        self._info(file, info)
        return name.value if info.type == LINK_RAW_TRACEPOINT else b""

    def look_up(self, file: int, key: bytes, size: int) -> bytes | None:
        """Return a map's value of `size` bytes, None if it has none."""
        value = ctypes.create_string_buffer(size)
        try:
            self.call("reading a map", "bpf_map_lookup_elem", file, key, value)
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return value.raw

    def update(self, file: int, key: bytes, value: bytes) -> None:
        """Set a map's value."""
        self.call("writing a map", "bpf_map_update_elem", file, key, value, 0)

    def delete(self, file: int, key: bytes) -> None:
        """Remove a key, if it is there."""
        try:
            self.call("writing a map", "bpf_map_delete_elem", file, key)
        except BpfError as error:
            if error.errno != errno.ENOENT:
                raise

    def keys(self, file: int, size: int, limit: int) -> Iterator[bytes]:
        """Yield at most `limit` keys; a map that changes meanwhile may give one twice."""
        key, following = None, ctypes.create_string_buffer(size)
        for _ in range(limit):
            try:
                self.call("listing a map", "bpf_map_get_next_key", file, key, following)
            except BpfError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            key = following.raw
            yield key

    def attach(self, tracepoint: str, program: int) -> int:
        """Run a program at a raw tracepoint; return the link, which ends with its last file."""
        arguments = (tracepoint.encode(), program)
        return int(self.call(f"attaching to {tracepoint}", "bpf_raw_tracepoint_open", *arguments))

    def iterate(self, program: int) -> None:
        """Run an iterator's program for all that it iterates over."""
        what = "going through the processes"
        link = self.call(what, "bpf_link_create", program, 0, ATTACH_ITERATOR, None)
        try:
            file = self.call(what, "bpf_iter_create", link)
            try:
                while os.read(file, _LINE_MAX):
                    pass
            except OSError as error:
                raise BpfError(f"{what}: {error.strerror}", error.errno or 0) from None
            finally:
                os.close(file)
        finally:
            os.close(link)

    def open(self, code: bytes) -> BpfObject:
        """Read an ELF object, to be prepared and loaded."""
        return BpfObject(self, code)

    def _info(self, file: int, info: ctypes.Structure) -> None:
        size = _U32(ctypes.sizeof(info))
        arguments = (file, ctypes.byref(info), ctypes.byref(size))
        self.call("asking what a map or link is", "bpf_obj_get_info_by_fd", *arguments)

    def _note(self, level: int, form: bytes, arguments: int) -> int:
        if level == _WARN:
            text = ctypes.create_string_buffer(_LINE_MAX)
            self._format(text, _LINE_MAX, form, arguments)
            last = text.value.decode(errors="replace").strip().splitlines()[-1:]
            self._lines.extend(line[:200] for line in last)
        return 0


class BpfObject:
    """An object: prepare it, `load` it, take its files, `close` it. What is in use stays loaded."""

    def __init__(self, libbpf: Libbpf, code: bytes) -> None:
        self._libbpf = libbpf
        what = "reading the kernel half"
        self._object = libbpf.call(what, "bpf_object__open_mem", code, len(code), None)

    def set_constants(self, value: bytes) -> None:
        """Fill the read-only data; `value` has its size."""
        self._map("bpf_map__set_initial_value", ".rodata", value, len(value))

    def use_map(self, name: str, file: int) -> None:
        """Use a map that exists already instead of making one."""
        self._map("bpf_map__reuse_fd", name, file)

    def resize(self, name: str, entries: int) -> None:
        """Set how many entries, or for a ring bytes, a map is made with."""
        self._map("bpf_map__set_max_entries", name, entries)

    def skip(self, program: str) -> None:
        """Do not load a program."""
        self._libbpf.call(program, "bpf_program__set_autoload", self._program(program), False)  # noqa: FBT003 - C has no keywords

    def load(self) -> None:
        """Load it into the kernel."""
        self._libbpf.call("loading the kernel half", "bpf_object__load", self._object)

    def map_file(self, name: str) -> int:
        """Return a map's file, which stays open when the object is closed."""
        what = f"the map {name}"
        arguments = (self._object, name.encode())
        return os.dup(self._libbpf.call(what, "bpf_object__find_map_fd_by_name", *arguments))

    def program_file(self, name: str) -> int:
        """Return a program's file, which is closed with the object."""
        return int(self._libbpf.call(name, "bpf_program__fd", self._program(name)))

    def close(self) -> None:
        """Let go of what nobody else uses."""
        self._libbpf._library.bpf_object__close(self._object)  # noqa: SLF001 - one module

    def _map(self, function: str, name: str, *arguments: object) -> None:
        what = f"the map {name}"
        found = self._libbpf.call(what, "bpf_object__find_map_by_name", self._object, name.encode())
        self._libbpf.call(what, function, found, *arguments)

    def _program(self, name: str) -> int:
        find = "bpf_object__find_program_by_name"
        return int(self._libbpf.call(name, find, self._object, name.encode()))


class Ring:
    """Reads a ring buffer, as the kernel's documentation of BPF_MAP_TYPE_RINGBUF describes it.

    libbpf calls a function for each record: from Python that takes longer than all else.

    `position` is how many bytes have been looked at since the ring was made.
    """

    def __init__(self, file: int, size: int) -> None:
        """Map a ring of `size` bytes. Raises OSError."""
        page = mmap.PAGESIZE
        writable = mmap.PROT_READ | mmap.PROT_WRITE
        self._size = size
        self._read_to = mmap.mmap(file, page, mmap.MAP_SHARED, writable)
        # Twice, so that a record is in one piece also where the ring begins anew.
        readable = page + 2 * size
        self.data = mmap.mmap(file, readable, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._headers = memoryview(self.data).cast("I")
        (self.position,) = _POSITION.unpack_from(self._read_to)
        self._lock = Lock()
        self._lock.acquire()

    @property
    def waiting(self) -> int:
        """How many bytes wait to be read."""
        (end,), (begin,) = map(_POSITION.unpack_from, (self.data, self._read_to))
        return int(end - begin)

    def peek(self, most: int, size: int = sys.maxsize) -> list[tuple[int, int]]:
        """Return where in `data` the records that wait begin and end.

        At most so many; the last begins in the first `size` bytes. They stay there until `release`.
        """
        headers, page, last = self._headers, mmap.PAGESIZE, self._size - 1
        found: list[tuple[int, int]] = []
        (end,) = _POSITION.unpack_from(self.data)
        self._fence()
        (position,) = _POSITION.unpack_from(self._read_to)
        end = min(end, position + size)
        while position < end and len(found) < most:
            begin = page + (position & last)
            length = headers[begin >> 2]
            if length >= _DISCARDED:
                if length >= _BUSY:
                    break
                length -= _DISCARDED
            else:
                begin += _HEADER
                found.append((begin, begin + length))
            position += length + _HEADER + 7 & ~7
        self.position = position
        self._fence()
        return found

    def release(self) -> None:
        """Give the room of what was returned back to the kernel."""
        self._fence()
        _POSITION.pack_into(self._read_to, 0, self.position)
        # The kernel wakes nobody who has not read all. Who asks again now sees what came meanwhile.
        self._fence()

    def close(self) -> None:
        """Unmap it."""
        self._headers.release()
        self._read_to.close()
        self.data.close()

    def _fence(self) -> None:
        """Let no processor put what is read or written before it after it, nor the reverse."""
        self._lock.release()
        self._lock.acquire()
