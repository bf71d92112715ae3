//! The names in `sys.modules`, as they stand in an interpreter's memory (CPython 3.9 to 3.14, `internal/pycore_dict.h`). Knows where things
//! stand; how memory is read is the caller's matter.

use super::layout::{Layout, Registry};

/// Reads ranges of memory, each an address and a length: all their bytes together, or `None`.
pub type Read<'a> = &'a dyn Fn(&[(u64, u64)]) -> Option<Vec<u8>>;

/// Modules read at most.
const MOST: u64 = 20_000;
/// Longest name that is read.
const LONGEST: u64 = 512;
/// Names read by one call: each is a range.
const BATCH: usize = 1024;
/// `ma_keys` in a `dict`.
const KEYS: u64 = 32;
/// Length, hash and state of a `str` are within so many bytes.
const TEXT_HEAD: usize = 40;

/// `sys.modules`, in the order in which they were put there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Names; those that are not ASCII are left out.
    pub names: Vec<String>,
    /// Whether these are all.
    pub complete: bool,
}

/// Reads the names of the modules of the interpreter made last; `runtime` is where `_PyRuntime` is. `None`: they cannot be read, or it has
/// none any more, as after `Py_Finalize`.
pub fn loaded(layout: &Layout, runtime: u64, read: Read<'_>) -> Option<Loaded> {
    let registry = layout.registry?;
    let word = |address: u64| number(&read(&[(address, 8)])?, 0);
    let interpreter = word(runtime.wrapping_add(registry.interpreters.into()))?;
    let modules = word(interpreter.wrapping_add(registry.modules.into()))?;
    let keys = word(modules.wrapping_add(KEYS))?;
    let Table { at, count, size } = table(&registry, &read(&[(keys, TEXT_HEAD as u64)])?)?;
    let entries = read(&[(keys.wrapping_add(at), count.min(MOST) * size as u64)])?;
    // Key and value come last; what was taken out has neither.
    let entries = entries.chunks_exact(size).filter_map(|entry| {
        let (key, value) = (number(entry, size - 16)?, number(entry, size - 8)?);
        (key != 0 && value != 0).then_some(key)
    });
    let texts: Vec<u64> = entries.collect();
    let mut loaded = Loaded { names: Vec::with_capacity(texts.len()), complete: count <= MOST };
    for batch in texts.chunks(BATCH) {
        let heads: Vec<(u64, u64)> = batch.iter().map(|text| (*text, TEXT_HEAD as u64)).collect();
        let heads = read(&heads)?;
        let heads = batch.iter().zip(heads.chunks_exact(TEXT_HEAD));
        let ranges: Vec<(u64, u64)> = heads
            .filter_map(|(text, head)| Some((text.wrapping_add(layout.ascii.into()), ascii(layout, head)?)))
            .collect();
        loaded.complete &= ranges.len() == batch.len();
        let bytes = read(&ranges)?;
        let mut rest = bytes.as_slice();
        for (_, length) in &ranges {
            let (name, others) = rest.split_at_checked(*length as usize)?;
            rest = others;
            loaded.names.push(str::from_utf8(name).ok()?.to_owned());
        }
    }
    (!loaded.names.is_empty()).then_some(loaded)
}

/// The entries of a dictionary.
struct Table {
    /// How far behind the beginning of its keys.
    at: u64,
    count: u64,
    size: usize,
}

/// `struct _dictkeysobject`: up to 3.10 the size of its index, from 3.11 on the logarithm of it in bytes, and whether all keys are `str`.
fn table(registry: &Registry, head: &[u8]) -> Option<Table> {
    if registry.old_keys {
        let slots = number(head, 8)?;
        let width = match slots {
            0..=0xff => 1,
            0x100..=0xffff => 2,
            _ => 4,
        };
        return Some(Table {
            at: slots.checked_mul(width)?.checked_add(40)?,
            count: number(head, 32)?,
            size: 24,
        });
    }
    let size = match head.get(10)? {
        0 => 24,
        1 => 16,
        _ => return None,
    };
    Some(Table {
        at: 1u64.checked_shl(u32::from(*head.get(9)?))?.wrapping_add(32),
        count: number(head, 24)?,
        size,
    })
}

/// The length of a `str` that is compact and ASCII; `None` for others.
fn ascii(layout: &Layout, head: &[u8]) -> Option<u64> {
    let length = number(head, 16).filter(|length| *length <= LONGEST)?;
    // Behind `interned` and three bits of `kind`.
    let state = number(head, 32)? >> layout.interned_bits >> 3;
    (state & 3 == 3).then_some(length)
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory that is full of one byte, and then of another.
    #[test]
    fn garbage_is_refused() {
        let layout = Layout::of(12, None).unwrap();
        for byte in [0, 1, 0x7f, 0xff] {
            let read = |ranges: &[(u64, u64)]| {
                let whole = ranges.iter().map(|range| range.1).sum::<u64>();
                assert!(whole <= 1 << 20, "so much is never asked for");
                Some(vec![byte; whole as usize])
            };
            assert_eq!(loaded(&layout, 0x1000, &read), None, "{byte}");
        }
        assert_eq!(loaded(&layout, 0x1000, &|_| None), None);
    }
}
