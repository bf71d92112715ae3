//! Member offsets from the kernel's BTF: one scan for the structures the programs follow. Knows the format of
//! `Documentation/bpf/btf.rst` and nothing of what the offsets are for.

use std::collections::HashMap;

/// Kinds of BTF type, from `include/uapi/linux/btf.h`.
mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

const MAGIC: u16 = 0xeb9f;
const TYPE_HEADER: usize = 12;

/// Kernel types, indexed far enough to find members by name.
pub(super) struct Btf<'a> {
    strings: &'a [u8],
    types: &'a [u8],
    /// Where each type stands in `types`; type ids start at 1.
    offsets: Vec<u32>,
    structs: HashMap<&'a [u8], u32>,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl<'a> Btf<'a> {
    /// Indexes `data`, remembering the structures named in `wanted`. `None` when it is not BTF of this byte order.
    pub(super) fn parse(data: &'a [u8], wanted: &[(&str, &str)]) -> Option<Self> {
        if u16::from_le_bytes(data.get(..2)?.try_into().ok()?) != MAGIC {
            return None;
        }
        let header_len = u32_at(data, 4)? as usize;
        let section = |at: usize| -> Option<&'a [u8]> {
            let start = header_len.checked_add(u32_at(data, at)? as usize)?;
            data.get(start..start.checked_add(u32_at(data, at + 4)? as usize)?)
        };
        let (types, strings) = (section(8)?, section(16)?);
        let mut btf = Self { strings, types, offsets: vec![0], structs: HashMap::new() };
        let mut at = 0;
        while at + TYPE_HEADER <= types.len() {
            let info = u32_at(types, at + 4)?;
            let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            if kind == kind::STRUCT {
                let name = btf.string(u32_at(types, at)?)?;
                if wanted.iter().any(|(owner, _)| owner.as_bytes() == name) {
                    btf.structs.entry(name).or_insert(btf.offsets.len() as u32);
                }
            }
            btf.offsets.push(at as u32);
            at += TYPE_HEADER
                + match kind {
                    kind::INT | kind::VAR | kind::DECL_TAG => 4,
                    kind::ARRAY => 12,
                    kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
                    kind::ENUM | kind::FUNC_PROTO => 8 * count,
                    _ => 0,
                };
        }
        Some(btf)
    }

    fn string(&self, offset: u32) -> Option<&'a [u8]> {
        let rest = self.strings.get(offset as usize..)?;
        Some(&rest[..rest.iter().position(|byte| *byte == 0)?])
    }

    /// Byte offset of `path` (`d_name.name`) in `struct owner`.
    pub(super) fn offset(&self, owner: &str, path: &str) -> Option<u32> {
        let mut id = *self.structs.get(owner.as_bytes())?;
        let mut bits = 0;
        for member in path.split('.') {
            let (offset, next) = self.member(id, member.as_bytes(), 0)?;
            bits += offset;
            id = next;
        }
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// Byte offset of the first of `paths`, separated by `|`, that there is; an empty one is always there, at [`observer_ebpf::ABSENT`].
    pub(super) fn first_offset(&self, owner: &str, paths: &str) -> Option<u32> {
        paths.split('|').find_map(|path| {
            if path.is_empty() { Some(observer_ebpf::ABSENT) } else { self.offset(owner, path) }
        })
    }

    /// Offset in bits and type of a member, anonymous structures and unions included.
    fn member(&self, id: u32, name: &[u8], depth: u32) -> Option<(u32, u32)> {
        let id = self.resolve(id)?;
        let at = *self.offsets.get(id as usize)? as usize;
        let info = u32_at(self.types, at + 4)?;
        if depth > 8 || ![kind::STRUCT, kind::UNION].contains(&((info >> 24) & 0x1f)) {
            return None;
        }
        let bitfields = info >> 31 == 1;
        for index in 0..(info & 0xffff) as usize {
            let member = at + TYPE_HEADER + 12 * index;
            let member_name = self.string(u32_at(self.types, member)?)?;
            let member_type = u32_at(self.types, member + 4)?;
            let raw = u32_at(self.types, member + 8)?;
            let bits = if bitfields { raw & 0x00ff_ffff } else { raw };
            if member_name == name {
                return Some((bits, member_type));
            }
            if member_name.is_empty()
                && let Some((inner, found)) = self.member(member_type, name, depth + 1)
            {
                return Some((bits + inner, found));
            }
        }
        None
    }

    /// Follows typedefs and qualifiers.
    fn resolve(&self, mut id: u32) -> Option<u32> {
        for _ in 0..16 {
            let at = *self.offsets.get(id as usize)? as usize;
            let kind = (u32_at(self.types, at + 4)? >> 24) & 0x1f;
            if ![kind::TYPEDEF, kind::VOLATILE, kind::CONST, kind::RESTRICT, kind::TYPE_TAG].contains(&kind) {
                return Some(id);
            }
            id = u32_at(self.types, at + 8)?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_refused() {
        assert!(Btf::parse(b"", &[]).is_none());
        assert!(Btf::parse(&[0x9f, 0xeb, 1, 0, 255, 255, 255, 255, 0, 0, 0, 0, 9, 9, 9, 9], &[]).is_none());
    }

    #[test]
    fn every_field_is_found_in_the_running_kernel() {
        let data = std::fs::read("/sys/kernel/btf/vmlinux").expect("this machine has BTF");
        let fields = observer_ebpf::KERNEL_FIELDS;
        let btf = Btf::parse(&data, fields).expect("parses");
        for (owner, paths) in fields {
            assert!(paths.split('|').any(|path| btf.offset(owner, path).is_some()), "{owner}.{paths}");
        }
        assert_eq!(btf.first_offset("task_struct", "no_such_member|"), Some(observer_ebpf::ABSENT));
        assert_eq!(btf.first_offset("task_struct", "no_such_member|pid"), btf.offset("task_struct", "pid"));
        assert_eq!(btf.first_offset("no_such_struct", "no_such_member"), None);
        assert_eq!(btf.offset("task_struct", "no_such_member"), None);
    }
}
