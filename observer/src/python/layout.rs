//! Where things stand in memory in one build of CPython. Knows CPython's headers, by version; reads no memory.

/// Offsets in bytes, from the headers of CPython 3.9 to 3.14 (`cpython/pystate.h`, `internal/pycore_frame.h`, `cpython/code.h`,
/// `cpython/unicodeobject.h`), x86-64, with a GIL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// In `PyThreadState`: the current frame, or the `_PyCFrame` that knows it.
    pub frame: u32,
    /// In `_PyCFrame`: the current frame. `None`: there is no such thing between.
    pub inner: Option<u32>,
    /// In a frame: its code object.
    pub code: u32,
    /// In a code object: `co_filename`. `None`: frames cannot be read.
    pub filename: Option<u32>,
    /// In a code object: `co_name`.
    pub name: u32,
    /// `sizeof(PyASCIIObject)`
    pub ascii: u32,
    /// `sizeof(PyCompactUnicodeObject)`
    pub compact: u32,
    /// In the state of a `str`: bits of `interned`, before `kind`.
    pub interned_bits: u32,
    /// In `PyThreadState`: the exception that is being raised. `None`: not known.
    pub exception: Option<u32>,
    /// Whether its type stands there instead (`curexc_type`, up to 3.11).
    pub exception_is_type: bool,
    /// The way to `sys.modules`. `None`: not known.
    pub registry: Option<Registry>,
}

/// The way to `sys.modules` (`internal/pycore_runtime.h`, `internal/pycore_interp.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registry {
    /// In `_PyRuntime`: the interpreter that was made last.
    pub interpreters: u32,
    /// In `PyInterpreterState`: the dictionary.
    pub modules: u32,
    /// Whether the keys of a dictionary are laid out as up to 3.10.
    pub old_keys: bool,
}

/// `_Py_DebugOffsets` begins with this (3.13, `internal/pycore_runtime.h`).
pub const COOKIE: &[u8; 8] = b"xdebugpy";
/// How much of it is needed.
pub const DEBUG_OFFSETS_LEN: usize = 64 * 8;

impl Layout {
    /// Of `3.minor`. `debug_offsets` is the beginning of `_PyRuntime`, which tells of itself from 3.13 on. `None`: not known.
    pub fn of(minor: u32, debug_offsets: Option<&[u8]>) -> Option<Self> {
        let old_text =
            Self { ascii: 48, compact: 72, interned_bits: 2, exception_is_type: true, ..Self::default() };
        let interned_bits = if minor >= 14 { 16 } else { 2 };
        let new_text = Self { ascii: 40, compact: 56, interned_bits, ..Self::default() };
        Some(match minor {
            9 | 10 => {
                let registry = Some(Registry { interpreters: 32, modules: 856, old_keys: true });
                let filename = Some(104);
                Self { frame: 24, code: 32, filename, name: 112, exception: Some(88), registry, ..old_text }
            }
            11 => Self {
                frame: 56,
                inner: Some(8),
                code: 32,
                filename: Some(112),
                name: 120,
                exception: Some(96),
                registry: Some(Registry { interpreters: 40, modules: 888, old_keys: false }),
                ..old_text
            },
            12 => Self {
                frame: 56,
                inner: Some(0),
                code: 0,
                filename: Some(112),
                name: 120,
                exception: Some(96),
                registry: Some(Registry { interpreters: 40, modules: 944, old_keys: false }),
                ..new_text
            },
            13 | 14 => debug_offsets.and_then(|bytes| told(minor, bytes, new_text)).unwrap_or(new_text),
            _ => return None,
        })
    }
}

/// What the build says of itself.
fn told(minor: u32, bytes: &[u8], text: Layout) -> Option<Layout> {
    let word = |index: usize| -> Option<u32> {
        let bytes = bytes.get(index * 8..index * 8 + 8)?;
        u64::from_le_bytes(bytes.try_into().ok()?).try_into().ok()
    };
    if !bytes.starts_with(COOKIE) || word(1)? >> 16 != (3 << 8 | minor) {
        return None;
    }
    // Cookie, version, free_threaded; three of the runtime's state; of the interpreter's 13 in 3.13 and 16 in 3.14.
    let thread_state = 3 + 3 + if minor == 13 { 13 } else { 16 };
    let frame = thread_state + if minor == 13 { 9 } else { 10 };
    let code = frame + if minor == 13 { 6 } else { 7 };
    let near = |offset: u32| (offset < 1024 && offset.is_multiple_of(8)).then_some(offset);
    let far = |offset: u32| (offset < 1 << 20 && offset.is_multiple_of(8)).then_some(offset);
    let registry = far(word(5)?).zip(far(word(11)?));
    let current_frame = near(word(thread_state + 4)?)?;
    Some(Layout {
        frame: current_frame,
        // Behind it stand two functions and two objects, for tracing and profiling (3.13 and 3.14).
        exception: Some(current_frame + 40),
        registry: registry.map(|(interpreters, modules)| Registry { interpreters, modules, old_keys: false }),
        code: near(word(frame + 2)?)?,
        filename: Some(near(word(code + 1)?).filter(|offset| *offset > 0)?),
        name: near(word(code + 2)?)?,
        ..text
    })
}
